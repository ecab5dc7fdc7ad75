"""Diagnostics of local latents: importance weights row by row, and of the global latents with the
local ones integrated out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.posterior import NEARLY_EQUAL, WeightedSamples, weight_samples
from vi_jax.diagnostics.psis import effective_draws, psis
from vi_jax.types import Array

# (key, u [D], index [B]) -> log p(x_n, z_n | u) - log q(z_n | u), [B] nats
RowWeights = Callable[[Array, Array, Array], Array]


def k_hats(key: Array, log_weights: RowWeights, u: Array, index: Array, *, num_draws: int) -> Array:
    """k-hat of each row's guide given theta, [M, B]: by the importance weights of z_n alone, which
    are as good however many rows there are; those of all rows together are hopeless for many. -inf
    where the weights are nearly equal, over 0.9 S effective samples, as for a whole posterior.

    Args:
      key: one typed PRNG key.
      log_weights: of one sample of the rows of a batch.
      u: a sample of theta for each batch, [M, D].
      index: rows, [M, B].
      num_draws: S of each row, at least 25.
    """

    def one(batch: tuple[Array, Array, Array]) -> Array:
        key, u, index = batch
        # [S, B]
        log_w = jax.lax.map(
            lambda key: log_weights(key, u, index), jax.random.split(key, num_draws)
        )
        return jax.vmap(_k_hat, 1)(log_w)

    return jax.lax.map(one, (jax.random.split(key, len(index)), u, index))


def _k_hat(log_w: Array) -> Array:
    """Of one row's log-weights [S]; -inf where they are nearly equal: a Gaussian is a little too
    short in the tails of most posteriors, whose k-hat is then large by weights of 1.1.
    """
    smoothed = psis(jnp.where(jnp.isnan(log_w), -jnp.inf, log_w))
    equal = effective_draws(smoothed.log_weights) > NEARLY_EQUAL * log_w.size
    return jnp.where(equal, -jnp.inf, smoothed.k_hat)


def weigh_shared(
    key: Array,
    log_global: Callable[[Array], Array],
    log_weights: RowWeights,
    q: Any,
    batches: tuple[Array, Array],
    *,
    num_draws: int,
    num_row_draws: int,
) -> WeightedSamples:
    """Samples of theta with their weights, the rows integrated out by importance sampling:

        w_s = p(theta_s) / q(theta_s) prod_n (1/M) sum_m p(x_n, z_nm | theta_s) / q(z_nm | theta_s).

    Each factor is unbiased for p(x_n | theta_s), and so is the product: weights as right as exact
    ones, and noisier (Tran et al. 2013). They and their mean, the evidence, correct what the guide
    gets wrong of theta's marginal.

    Args:
      q: the guide of theta.
      batches: numbers [M, B] of all rows, and which count.
      num_draws: S, of theta.
      num_row_draws: M, of each row for each of them.
    """

    def log_p(args: tuple[Array, Array]) -> Array:
        key, u = args

        def rows(batch: tuple[Array, Array, Array]) -> Array:
            key, index, counts = batch
            log_w = jax.vmap(lambda key: log_weights(key, u, index))(
                jax.random.split(key, num_row_draws)
            )
            terms = jax.nn.logsumexp(log_w, axis=0) - jnp.log(num_row_draws)
            return jnp.where(counts, terms, 0.0).sum()

        keys = jax.random.split(key, len(batches[0]))
        return log_global(u) + jax.lax.map(rows, (keys, *batches)).sum()

    key_u, key_rows = jax.random.split(key)
    u = q.sample(key_u, (num_draws,))
    values = jax.lax.map(log_p, (jax.random.split(key_rows, num_draws), u))
    return weight_samples(u, values, q)
