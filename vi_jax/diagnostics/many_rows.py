"""Importance weights of global latents with the local latents of many rows integrated out, by
common random numbers.

With samples of its own for each theta, the noise of the rows' integrals grows with the number of
rows and drowns the weights. With the same noise for all theta, most of it is common and cancels
(as in simulated likelihood, Gourieroux & Monfort 1996). The log of a mean of M weights is biased
by O(1 / M), which adds up over rows; the jackknife takes that away (Nowozin 2018).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.posterior import WeightedSamples, weight_samples
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.sampling import antithetic
from vi_jax.types import Array

# (key, u [D], index [B], K) -> log p(x_n, z_nk | u) - log q(z_nk | u), [K, B] nats, of K samples
# that may depend on each other
EvenRowWeights = Callable[[Array, Array, Array, int], Array]
NUM_GROUPS = 4  # G, of a row's samples, that the jackknife leaves out one by one
VALUES_AT_A_TIME = 100_000  # of log p(x_n, z_n | theta), about: an array of them has to be in cache


class IntegratedWeights(NamedTuple):
    """Samples of theta with their weights, and the noise that the rows' samples leave."""

    samples: WeightedSamples
    # [D], the standard error of theta's weighted mean that the rows' samples are responsible for,
    # in its weighted standard deviations
    row_stderr: Array


def weigh_many_rows(
    key: Array,
    log_global: Callable[[Array], Array],
    log_weights: EvenRowWeights,
    q: Any,
    batches: tuple[Array, Array],
    *,
    num_draws: int,
    num_row_draws: int,
) -> IntegratedWeights:
    """Samples of theta with their weights, the rows integrated out by importance sampling with the
    same random numbers for each theta; see the module. Sums over rows are of differences from
    those at one sample of theta, so that float32 is enough.

    Args:
      key: one typed PRNG key.
      log_global: u [D] -> log p(theta), nats.
      log_weights: of samples of the rows of a batch, smooth in u at one key.
      q: the guide of theta; a Gaussian's samples are mirrored in pairs.
      batches: numbers [M, B] of all rows, and which count.
      num_draws: S, of theta, even.
      num_row_draws: of each row, the same for all theta; a multiple of `NUM_GROUPS`, at least twice
        as many.

    Raises:
      ValueError: num_draws or num_row_draws is not of that kind.
    """
    if num_draws % 2:
        raise ValueError(f"num_draws expects an even number; got {num_draws}.")
    if num_row_draws % NUM_GROUPS or num_row_draws < 2 * NUM_GROUPS:
        raise ValueError(
            f"num_row_draws expects a multiple of {NUM_GROUPS}, {2 * NUM_GROUPS} at least; got "
            f"{num_row_draws}."
        )
    key_u, key_rows = jax.random.split(key)
    sampled = antithetic(q) if is_gaussian_vector(q) else q
    u = sampled.sample(key_u, (num_draws,))
    keys = jax.random.split(key_rows, len(batches[0]))
    at_a_time = _divisor(num_draws, VALUES_AT_A_TIME // (num_row_draws * batches[0].shape[1]))

    def add(sums: tuple[Array, Array], batch: tuple[Array, Array, Array]) -> Any:
        key, index, counts = batch
        of_groups = jax.random.split(key, NUM_GROUPS)
        size = num_row_draws // NUM_GROUPS

        def terms(u: Array) -> Array:  # [G, B]
            def one(key: Array) -> Array:
                return log_weights(jax.random.clone(key), u, index, size)

            log_w = jax.vmap(one)(of_groups).reshape(num_row_draws, -1)
            return jnp.where(counts, pseudo_values(log_w), 0.0)

        first = terms(u[0])
        apart = jax.lax.map(lambda u: (terms(u) - first).sum(1), u, batch_size=at_a_time)
        return (sums[0] + apart, sums[1] + first.sum(1).mean()), None

    zeros = jnp.zeros((num_draws, NUM_GROUPS), u.dtype)
    priors = jax.lax.map(log_global, u)
    (groups, total), _ = jax.lax.scan(add, (zeros, priors[0]), (keys, *batches))
    values = priors - priors[0] + groups.mean(1)
    samples = weight_samples(u, values, q)
    samples = samples._replace(elbo=samples.elbo + total, log_evidence=samples.log_evidence + total)
    return IntegratedWeights(samples, _row_stderr(samples, groups))


def pseudo_values(log_w: Array) -> Array:
    """The jackknife's pseudo-values of log mean_m w_m, leaving out a group at a time: their mean
    over groups is without the bias of order 1 / M, and their variance over G is that of the mean.

    Args:
      log_w: [M, B].

    Returns:
      [G, B].
    """
    num = len(log_w)
    grouped = log_w.reshape(NUM_GROUPS, num // NUM_GROUPS, -1)
    of_all = jax.nn.logsumexp(log_w, axis=0) - jnp.log(num)
    kept = [jnp.delete(grouped, g, axis=0) for g in range(NUM_GROUPS)]
    without = jnp.stack([jax.nn.logsumexp(x, axis=(0, 1)) for x in kept])
    without = without - jnp.log(num - num // NUM_GROUPS)
    return NUM_GROUPS * of_all - (NUM_GROUPS - 1) * without


def _row_stderr(samples: WeightedSamples, groups: Array) -> Array:
    """[D]: to first order a change d(theta) of the log density moves the mean by
    Cov(theta, d(theta)), which is had for each group of the rows' samples [S, G].
    """
    w = jnp.exp(samples.log_weights)
    centred = samples.u - w @ samples.u
    sd = jnp.sqrt(w @ centred**2)
    apart = groups - groups.mean(1, keepdims=True)
    moved = (w[:, None] * apart).T @ centred / sd  # [G, D]
    return jnp.sqrt((moved**2).sum(0) / (NUM_GROUPS * (NUM_GROUPS - 1)))


def _divisor(num: int, most: int) -> int:
    """The largest divisor of num up to `most`, or 1."""
    return max(d for d in range(1, max(most, 1) + 1) if num % d == 0)
