"""Learning the priors of shares and of topics."""

import jax
import jax.numpy as jnp

from vi_jax.topics.special import psi, trigamma
from vi_jax.types import Array

LEAST_ALPHA = 1e-3  # of a learned entry
LEAST_ETA = 0.02  # of the mean of a learned one: see `local`, float32
_EULER = 0.5772156649015329


def inverse_psi(y: Array) -> Array:
    """x with psi(x) = y, by Newton's method from Minka's start (Minka 2000, appendix C)."""
    x = jnp.where(y > -2.22, jnp.exp(y) + 0.5, -1.0 / (y + _EULER))
    for _ in range(4):
        x = jnp.maximum(x - (psi(x) - y) / trigamma(x), 0.1 * x)
    return x


def learn_alpha(
    alpha: Array, log_shares: Array, num_docs: Array, *, num_iterations: int = 20
) -> Array:
    """The asymmetric alpha [K] that raises the ELBO: the fixed point psi(alpha_k) = psi(sum alpha)
    + mean E[log theta_k] (Minka 2000, eq. 9), each iteration of which raises it.

    Args:
      alpha: where to begin, [K].
      log_shares: the sum of E[log theta] of all documents that are not empty, [K].
      num_docs: how many these are.
      num_iterations: of the fixed point.
    """
    mean = log_shares / jnp.maximum(num_docs, 1.0)

    def step(_: int, alpha: Array) -> Array:
        new = inverse_psi(psi(jnp.sum(alpha)) + mean)
        return jnp.maximum(new, LEAST_ALPHA)

    return jax.lax.fori_loop(0, num_iterations, step, alpha)


def learn_alpha_collapsed(alpha: Array, expected: Array, lengths: Array) -> Array:
    """One step of the fixed point for alpha with the shares integrated out (Minka 2000, eq. 55;
    Wallach 2008), whose counts of tokens by document and topic are expected ones:

        alpha_k <- alpha_k sum_d E[psi(n_dk + alpha_k) - psi(alpha_k)]
                           / sum_d (psi(n_d + sum alpha) - psi(sum alpha)).

    A topic that a document has either not or wholly is not one that it has a little of: with n_dk
    about Poisson, the expectation is taken at the mean given that n_dk is not 0, times the chance
    of that (Teh et al. 2007, sec. 3). At the mean alone alpha grows without end.

    Args:
      alpha: [K].
      expected: E[n_dk], [N, K].
      lengths: n_d, [N]; 0 of empty documents, which say nothing.
    """
    chance = -jnp.expm1(-expected)
    given = expected / jnp.maximum(chance, 1e-6)
    rise = chance * (psi(given + alpha) - psi(alpha))
    total = jnp.sum(alpha)
    rise_total = jnp.sum(psi(lengths + total) - psi(total))
    return jnp.maximum(alpha * jnp.sum(rise, 0) / jnp.maximum(rise_total, 1e-6), LEAST_ALPHA)


def learn_eta(eta: Array, lam: Array, *, num_iterations: int = 10) -> Array:
    """The eta [V], of the proportions that it has, that raises the ELBO, topics Dirichlet(lam)
    [V, K]: Newton's method on K (log Gamma(sum eta) - sum log Gamma(eta)) + sum eta E[log beta] in
    the log of its scale, each step at most twofold.
    """
    num_topics = lam.shape[1]
    mean = jnp.sum(psi(lam) - psi(jnp.sum(lam, 0)), 1) / num_topics  # [V]

    def step(_: int, eta: Array) -> Array:
        total = jnp.sum(eta)
        slope = total * psi(total) - jnp.sum(eta * (psi(eta) - mean))
        bend = total**2 * trigamma(total) - jnp.sum(eta**2 * trigamma(eta)) + slope
        move = jnp.where(bend < 0, -slope / jnp.minimum(bend, -1e-12), jnp.sign(slope))
        return _bounded(eta * jnp.exp(jnp.clip(move, -0.7, 0.7)))

    return jax.lax.fori_loop(0, num_iterations, step, eta)


def learn_eta_collapsed(eta: Array, stats: Array) -> Array:
    """One step of the fixed point for the scale of eta [V] with the topics integrated out:
    `learn_alpha_collapsed` of topics over words, stats [V, K].
    """
    chance = -jnp.expm1(-stats)
    given = stats / jnp.maximum(chance, 1e-6)
    column = eta[:, None]
    rise = jnp.sum(column * chance * (psi(given + column) - psi(column)))
    total = jnp.sum(eta)
    rise_total = total * jnp.sum(psi(jnp.sum(stats, 0) + total) - psi(total))
    return _bounded(eta * rise / jnp.maximum(rise_total, 1e-6))


def _bounded(eta: Array) -> Array:
    """Of a mean of at least LEAST_ETA, the proportions kept."""
    return eta * jnp.maximum(1.0, LEAST_ETA / jnp.mean(eta))
