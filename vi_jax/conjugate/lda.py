"""Latent Dirichlet allocation by coordinate ascent: the reference that `vi_jax.topics`, made for
many documents, is tested against.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma

from vi_jax.arguments import as_count, as_key
from vi_jax.conjugate import cavi, factors
from vi_jax.conjugate.engine import Model, Naturals, inner
from vi_jax.types import Array, freeze

ETA = 0.1  # of the symmetric prior of topics


@cache
def model(
    num_topics: int,
    num_words: int,
    *,
    alpha: float | tuple[float, ...] = 0.5,
    eta: float = ETA,
    num_iterations: int = 500,
    tolerance: float = 1e-9,
) -> Model:
    """beta_k ~ Dirichlet(eta), theta_d ~ Dirichlet(alpha), each word of document d from
    sum_k theta_dk beta_k (Blei et al. 2003), with q(beta) and, for each document, q(theta) q(z).

    The local factors are at the fixed point of gamma_k = alpha_k + sum_w n_w phi_wk, phi_wk ~
    exp(E[log theta_k] + E[log beta_kw]), from which, the assignments z at their optimum,

        log_lik = sum_w n_w log sum_k exp(E[log theta_k] + E[log beta_kw]) - KL(q(theta), p(theta)).

    Args:
      num_topics: K.
      num_words: V.
      alpha: of the prior of shares, one number or K.
      eta: of the prior of topics.
      num_iterations: of the fixed point, at most.
      tolerance: stop it when no entry of gamma moves by more, relative to the tokens.

    Returns:
      A Model of documents {"ids": words [L] int32, "counts": how often [L], 0 where unused}, with
      one factor "topics" (`factors.dirichlet`, [K, V]).
    """
    as_count(num_topics, "num_topics", what="K")
    as_count(num_words, "num_words", what="V")

    def prior() -> Naturals:
        dtype = jnp.result_type(float)
        return {"topics": {"log": jnp.full((num_topics, num_words), eta - 1.0, dtype)}}

    def log_prior(means: Naturals) -> Array:
        natural = prior()["topics"]
        return inner(natural, means["topics"]) - factors.dirichlet(natural)

    def log_lik(means: Naturals, x: Any) -> Array:
        log_beta = means["topics"]["log"][:, x["ids"]]  # [K, L]
        counts = x["counts"].astype(log_beta.dtype)
        prior_shares = jnp.broadcast_to(jnp.asarray(alpha, log_beta.dtype), (num_topics,))
        gamma = _fixed_point(freeze(log_beta), counts, prior_shares, num_iterations, tolerance)
        log_theta = digamma(gamma) - digamma(jnp.sum(gamma))
        by_word = jax.nn.logsumexp(log_theta[:, None] + log_beta, 0)
        return jnp.sum(counts * by_word) - _kl(gamma, prior_shares, log_theta)

    return Model((("topics", factors.dirichlet),), log_prior, log_lik, (("topics",),), prior)


def _fixed_point(
    log_beta: Array, counts: Array, alpha: Array, num_iterations: int, tolerance: float
) -> Array:
    """gamma [K] of one document."""
    total = jnp.sum(counts)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, moved, number = carry
        return (moved > tolerance * jnp.maximum(total, 1.0)) & (number < num_iterations)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        gamma, _, number = carry
        phi = jax.nn.softmax(digamma(gamma)[:, None] + log_beta, 0)
        new = alpha + phi @ counts
        return new, jnp.max(jnp.abs(new - gamma)), number + 1

    gamma = alpha + total / alpha.shape[0]
    start = (gamma, jnp.full((), jnp.inf, gamma.dtype), jnp.int32(0))
    return jax.lax.while_loop(unfinished, body, start)[0]


def _kl(gamma: Array, alpha: Array, log_theta: Array) -> Array:
    """KL(Dirichlet(gamma), Dirichlet(alpha)), nats, of gamma >= alpha."""
    normalisers = factors.dirichlet({"log": alpha - 1.0}) - factors.dirichlet({"log": gamma - 1.0})
    return normalisers + jnp.sum((gamma - alpha) * log_theta)


def init(key: Array, model: Model, *, num_starts: int = 1) -> Naturals:
    """Random topics, [R, K, V]: from equal ones coordinate ascent would not move."""
    prior = model.start()["topics"]["log"]
    noise = jax.random.exponential(as_key(key, "lda.init"), (num_starts, *prior.shape), prior.dtype)
    return {"topics": {"log": prior + noise}}


def fit(
    key: Array,
    x: Any,
    *,
    num_topics: int,
    num_words: int,
    num_starts: int = 1,
    num_sweeps: int = 500,
    tolerance: float = 1e-7,
    **settings: Any,
) -> cavi.Fit:
    """Coordinate ascent from R starts, the best of which is kept: see `model`, which `settings`
    are of, and `cavi.fit`. For more than some thousand documents use `vi.topics.fit_lda`.

    Args:
      x: {"ids": [N, L], "counts": [N, L]}, all documents padded to one length by counts of 0.

    Returns:
      A Fit; `factors.as_dirichlet(fit.natural["topics"])` is the posterior of the topics.
    """
    of = model(num_topics, num_words, **settings)
    starts = init(key, of, num_starts=num_starts)
    return cavi.fit(of, x, starts, num_sweeps=num_sweeps, tolerance=tolerance)
