"""The E-step of the correlated topic model: a normal q(z) of each document, fitted by Newton's
method.

With z ~ N(mu, Sigma), theta = softmax(z) and q(z) = N(m, diag(v)), a document's bound is

    -KL(q, N(mu, Sigma)) + sum_w n_w log sum_k exp(m_k) beta_kw
        - n (1/2 sum_k a_k^2 v_k + log sum_k exp(m_k + (1 - 2 a_k) v_k / 2)),

Blei & Lafferty's (2007, eqs. 8 to 10) with the assignments phi at their optimum and, in the place
of their expansion about zeta, the tilted bound of E[log sum exp(z)] (Knowles & Minka 2011). At
a = 0 this is theirs with zeta at its optimum; a is free, and the best is a = softmax(m + (1 - 2 a)
v / 2).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.types import Array

_HALVINGS = 8  # of a step
_FLOOR = 1e-30
_START_LOG_V = -1.0


class Prior(NamedTuple):
    """N(mu, Sigma) of z, by what the E-step reads of it."""

    mean: Array  # mu, [K]
    precision: Array  # Sigma^-1, [K, K]
    log_det: Array  # log det Sigma


class Posterior(NamedTuple):
    """q(z) of a document and the tilt of its bound; leaves [K], or [..., K] of many."""

    m: Array  # mean
    log_v: Array  # logs of the variances
    tilt: Array  # a


def prior_of(mean: Array, covariance: Array) -> Prior:
    """The prior of a mean [K] and a covariance [K, K]."""
    tril = linalg.cholesky(covariance)
    precision = linalg.cho_solve((tril, True), jnp.eye(len(mean), dtype=mean.dtype))
    return Prior(mean, precision, 2.0 * jnp.sum(jnp.log(jnp.diagonal(tril))))


def start_at(m: Array) -> Posterior:
    """Where fits of documents begin, of means m [..., K]."""
    return Posterior(m, jnp.full_like(m, _START_LOG_V), jax.nn.softmax(m))


def document_bound(prior: Prior, counts: Array, beta: Array, q: Posterior) -> Array:
    """A lower bound of log p(words | topics) of one document, nats.

    Args:
      prior: of z.
      counts: of its words, [L].
      beta: their probabilities in each topic, [L, K].
      q: of z, with any tilt.
    """
    v = jnp.exp(q.log_v)
    away = q.m - prior.mean
    quadratic = away @ prior.precision @ away + jnp.diagonal(prior.precision) @ v
    kl = 0.5 * (quadratic - len(q.m) + prior.log_det - jnp.sum(q.log_v))
    shift = jnp.max(q.m)
    words = jnp.log(jnp.maximum(beta @ jnp.exp(q.m - shift), _FLOOR)) + shift
    normaliser = 0.5 * q.tilt**2 @ v + jax.nn.logsumexp(_tilted(q))
    return counts @ words - jnp.sum(counts) * normaliser - kl


def _tilted(q: Posterior) -> Array:
    return q.m + (0.5 - q.tilt) * jnp.exp(q.log_v)


def assigned(counts: Array, beta: Array, m: Array) -> Array:
    """Expected tokens of each word in each topic, n_w phi_wk (eq. 10), [L, K]."""
    weighted = beta * jnp.exp(m - jnp.max(m))
    return counts[:, None] * weighted / jnp.maximum(jnp.sum(weighted, 1, keepdims=True), _FLOOR)


def ascend(prior: Prior, counts: Array, beta: Array, q: Posterior) -> Posterior:
    """One round of steps in a, in m with phi at its optimum, and in log v, each halved until
    `document_bound` does not fall.
    """
    total = jnp.sum(counts)

    def bound(q: Posterior) -> Array:
        return document_bound(prior, counts, beta, q)

    # 1. a: the fixed point of the best one
    step = jax.nn.softmax(_tilted(q)) - q.tilt
    q = q._replace(tilt=_halved(lambda a: bound(q._replace(tilt=a)), q.tilt, step))
    # 2. m: given phi the bound is concave in it; a Newton step
    shares = jax.nn.softmax(_tilted(q))
    expected = jnp.sum(assigned(counts, beta, q.m), 0)
    slope = expected - total * shares - prior.precision @ (q.m - prior.mean)
    bend = prior.precision + total * (jnp.diag(shares) - shares[:, None] * shares)
    step = linalg.solve(bend, slope)
    q = q._replace(m=_halved(lambda m: bound(q._replace(m=m)), q.m, step))
    # 3. log v: a Newton step with the diagonal of its bend
    v = jnp.exp(q.log_v)
    shares = jax.nn.softmax(_tilted(q))
    spread = q.tilt**2 + (1.0 - 2.0 * q.tilt) * shares
    pull = 0.5 * v * (jnp.diagonal(prior.precision) + total * spread)
    step = jnp.clip((0.5 - pull) / jnp.maximum(pull, 0.1), -1.0, 1.0)
    return q._replace(log_v=_halved(lambda u: bound(q._replace(log_v=u)), q.log_v, step))


def ascend_for(
    num_rounds: int, prior: Prior, counts: Array, beta: Array, q: Posterior
) -> Posterior:
    """q after some rounds."""
    return jax.lax.fori_loop(0, num_rounds, lambda _, q: ascend(prior, counts, beta, q), q)


def _halved(value: Callable[[Array], Array], start: Array, step: Array) -> Array:
    """The best of start + step, + step / 2, + step / 4, ... and start itself."""
    sizes = jnp.append(0.5 ** jnp.arange(_HALVINGS, dtype=start.dtype), 0.0)
    tried = start + sizes[:, None] * step
    values = jax.vmap(value)(tried)
    values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    return tried[jnp.argmax(values)]
