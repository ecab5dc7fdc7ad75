"""Learning the prior of shares, and where fits start."""

import jax
import jax.numpy as jnp

from vi_jax.topics.special import psi, trigamma
from vi_jax.types import Array

LEAST_ALPHA = 1e-3  # of a learned entry
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


def from_documents(key: Array, rows: Array, unigram: Array, *, mix: float = 0.5) -> Array:
    """Topics to start from: a few documents each, mixed with the corpus's own frequencies.

    Args:
      key: not used twice.
      rows: word frequencies of the documents of each topic, [V, K], columns that sum to 1.
      unigram: the corpus's, [V].
      mix: the share of the corpus's.

    Returns:
      [V, K], columns that sum to 1; noise of 1 % keeps topics of equal documents apart.
    """
    noise = 1.0 + 0.01 * jax.random.uniform(key, rows.shape, rows.dtype)
    start = ((1.0 - mix) * rows + mix * unigram[:, None]) * noise
    return start / jnp.sum(start, 0)
