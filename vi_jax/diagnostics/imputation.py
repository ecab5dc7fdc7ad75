"""Imputation: the posterior of what a row of a table lacks, given what is observed of it, by
importance sampling.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.psis import effective_draws, psis
from vi_jax.losses.bound import densities_of, log_joint
from vi_jax.types import Array, Model, Params, num_examples
from vi_jax.weights import draw, log_weights

LEAST_SAMPLES = 25  # that a tail of weights can be fitted to


class Imputed(NamedTuple):
    """p(x_miss | x_obs) of one row of D columns, in the model's units; observed entries are
    themselves throughout. Of a sequence [D] is [T, D].
    """

    mean: Array  # E[x_j | x_obs], [D]; of classes the expected code
    std: Array  # the standard deviation of x_j given x_obs, [D]; 0 where observed
    median: Array  # [D]
    lower: Array  # ends of the interval, [D]
    upper: Array
    # P(x_j = l | x_obs) of zeros and ones, classes and levels, [D, L]; see `TableDistribution`
    probs: Array
    draws: Array  # whole rows from the posterior, equally likely, [S, D]
    log_evidence: Array  # log p(x_obs) by the same K samples, nats: L_K of Burda et al. (2016)
    effective_samples: Array  # 1 / sum of squared weights, between 1 and K
    k_hat: Array  # of the weights, see `psis`: above `k_threshold(K)` none of this is to be trusted


def impute_row(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_samples: int = 1_000,
    num_draws: int = 20,
    coverage: float = 0.9,
) -> Imputed:
    """The posterior of the missing entries of one row (Mattei & Frellsen 2019, eq. 12 to 14):

        E[h(x_miss) | x_obs] = sum_k w_k E[h(x_miss) | z_k],   w_k ~ p(x_obs, z_k) / q(z_k | x_obs),

    over K samples z_k of the guide. Means, variances and probabilities are those of p(x_miss | z)
    in closed form, averaged over the weights (Rao-Blackwellised); intervals and the median are
    weighted quantiles of one x_miss ~ p(x_miss | z_k) for each k; draws resample these by their
    weights (sampling importance resampling, ibid., sec. 3.3). Weights are Pareto-smoothed.

    Args:
      key: one typed PRNG key.
      model, params: of `models.table_vae` or `models.sequence_vae`.
      x: one example, {"values": [D], "observed": [D], ...}, or of a sequence [T, D]; one with
        nothing observed is drawn from the model, one with everything observed comes back.
      num_samples: K, at least 25.
      num_draws: S.
      coverage: of the interval between lower and upper, with equal tails.

    Raises:
      ValueError: K is below 25, the coverage is no share, or the model has no densities.
    """
    if num_samples < LEAST_SAMPLES or num_draws < 1 or not 0.0 < coverage < 1.0:
        raise ValueError(
            f"impute expects num_samples of at least {LEAST_SAMPLES}, num_draws of at least 1 and "
            f"a coverage between 0 and 1; got {num_samples}, {num_draws} and {coverage}."
        )
    densities = densities_of(model, "impute")
    key_z, key_x, key_chosen = jax.random.split(key, 3)
    # 1. samples of the guide, and their weights
    q = densities.guide(params, x)
    z = draw(key_z, q, num_samples)
    log_w = log_weights(log_joint(model, params, x), q, z)
    smoothed = psis(jnp.where(jnp.isnan(log_w), -jnp.inf, log_w))
    weights = jnp.exp(smoothed.log_weights)  # [K]

    # 2. x_miss given each of them
    def given(key: Array, z_k: Any) -> tuple[Array, Array, Array, Array]:
        p = densities.decode(params, x, z_k)
        return p.mean, p.variance, p.probs, p.sample(key)["values"]

    (means, variances, probs, drawn) = jax.vmap(given)(jax.random.split(key_x, num_samples), z)
    # 3. the moments of their mixture, its quantiles, and rows drawn from it
    observed = x["observed"]
    values = jnp.where(observed, x["values"], 0.0).astype(means.dtype)
    mean = _average(weights, means)
    variance = _average(weights, variances + (means - mean) ** 2)
    tail = 0.5 * (1.0 - coverage)
    ends = weighted_quantiles(drawn, weights, jnp.array([tail, 0.5, 1.0 - tail]))  # [3, D]
    chosen = jax.random.categorical(key_chosen, smoothed.log_weights, shape=(num_draws,))

    def with_observed(found: Array) -> Array:
        return jnp.where(observed, values, found)

    return Imputed(
        with_observed(mean),
        jnp.where(observed, 0.0, jnp.sqrt(jnp.maximum(variance, 0.0))),
        with_observed(ends[1]),
        with_observed(ends[0]),
        with_observed(ends[2]),
        _with_observed_classes(_average(weights, probs), values, observed),
        with_observed(drawn[chosen]),
        jax.nn.logsumexp(log_w) - jnp.log(num_samples),
        effective_draws(smoothed.log_weights),
        smoothed.k_hat,
    )


def impute(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_samples: int = 1_000,
    num_draws: int = 20,
    coverage: float = 0.9,
    batch_size: int = 16,
) -> Imputed:
    """`impute_row` of every row of a table, leaves [N, ...].

    Memory grows with batch_size x num_samples x D.

    Args:
      x: {"values": [N, D], "observed": [N, D], ...}.
      batch_size: rows at a time.
      key, model, params, num_samples, num_draws, coverage: as for `impute_row`.
    """

    def one(key_and_x: tuple[Array, Any]) -> Imputed:
        (key, row) = key_and_x
        return impute_row(
            key,
            model,
            params,
            row,
            num_samples=num_samples,
            num_draws=num_draws,
            coverage=coverage,
        )

    num = num_examples(x)
    return jax.lax.map(one, (jax.random.split(key, num), x), batch_size=min(batch_size, num))


def weighted_quantiles(samples: Array, weights: Array, shares: Array) -> Array:
    """The smallest sample at or below which a share of the weights lies, by column.

    Args:
      samples: [K, ...].
      weights: [K], that sum to 1.
      shares: [Q], between 0 and 1.

    Returns:
      [Q, ...].
    """
    order = jnp.argsort(samples, axis=0)
    ordered = jnp.take_along_axis(samples, order, axis=0)
    below = jnp.cumsum(weights[order], axis=0)  # [K, ...]
    # rounding may leave the last sum short of a share near 1
    each = shares.reshape(-1, *(1,) * samples.ndim)
    first = jnp.sum(below[None] < each, axis=1)  # [Q, ...]
    last = samples.shape[0] - 1
    return jnp.take_along_axis(ordered, jnp.minimum(first, last), axis=0)


def _average(weights: Array, each: Array) -> Array:
    """sum_k w_k a_k of [K, ...]; what has no weight may be infinite."""
    w = weights.reshape(-1, *(1,) * (each.ndim - 1))
    return jnp.where(w > 0.0, w * each, 0.0).sum(0)


def _with_observed_classes(probs: Array, values: Array, observed: Array) -> Array:
    """Probabilities [..., L] that are 1 at the class that is observed."""
    known = jax.nn.one_hot(values.astype(jnp.int32), probs.shape[-1], dtype=probs.dtype)
    has_classes = probs.sum(-1) > 0.5
    return jnp.where((observed & has_classes)[..., None], known, probs)
