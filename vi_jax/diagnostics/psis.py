"""Pareto-smoothed importance sampling (PSIS) and k-hat, its diagnostic."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array

_NEARLY_EQUAL = 0.1  # nats between the largest weight and the least of the tail


class Smoothed(NamedTuple):
    """Smoothed weights and the shape of their tail."""

    log_weights: Array  # [S], normalised: their exponentials sum to 1
    k_hat: Array  # the shape of the generalised Pareto fitted to the largest weights


def psis(log_w: Array) -> Smoothed:
    """Pareto-smoothed importance sampling (Vehtari et al. 2024, sec. 2.4 and algorithm 1).

    The M = ceil(min(S/5, 3 sqrt(S))) largest weights are replaced by the quantiles of a generalised
    Pareto fitted to them by Zhang & Stephens' estimator with its weak prior, truncated at the
    largest weight.

    Args:
      log_w: log p(x, z_s) - log q(z_s), [S], S of at least 25; nan is not allowed, -inf is a weight
        of 0.

    Returns:
      Smoothed weights and k-hat; k-hat above `k_threshold(S)` says that moments by these weights
      cannot be trusted. It is never nan: -inf where the largest weights are all but equal, inf
      where they are so unequal that they have no shape.

    Raises:
      ValueError: fewer than 25 samples.
    """
    num_draws = log_w.shape[0]
    if num_draws < 25:
        raise ValueError(f"psis expects at least 25 log-weights to fit a tail to; got {num_draws}.")
    num_tail = tail_size(num_draws)
    order = jnp.argsort(log_w)
    x = log_w[order] - jnp.max(log_w)
    tail = x[-num_tail:]
    k_hat, sigma, cutoff = _fit_tail(x[-num_tail - 1 :])
    probabilities = (jnp.arange(num_tail) + 0.5) / num_tail
    smooth = jnp.log(pareto_quantile(probabilities, k_hat, sigma) + jnp.exp(cutoff))
    smooth = jnp.where(jnp.isfinite(k_hat), jnp.minimum(smooth, 0.0), tail)
    x = x.at[-num_tail:].set(smooth)
    log_weights = jnp.zeros_like(x).at[order].set(x - jax.nn.logsumexp(x))
    return Smoothed(log_weights, k_hat)


def tail_size(num_draws: int) -> int:
    """M = ceil(min(S/5, 3 sqrt(S))), how many of S weights make up the tail."""
    return math.ceil(min(0.2 * num_draws, 3 * math.sqrt(num_draws)))


def k_hat_of_largest(log_w: Array) -> Array:
    """k-hat from the M + 1 largest of S log-weights alone, as `psis` has it, M = `tail_size(S)`.

    What is kept of samples that come in chunks: memory then grows with the root of S.

    Args:
      log_w: the M + 1 largest log-weights, ascending, [M + 1].
    """
    return _fit_tail(log_w - log_w[-1])[0]


def _fit_tail(x: Array) -> tuple[Array, Array, Array]:
    """k-hat, the scale and the cutoff of the M largest log-weights less the largest, with the one
    before them in front, ascending, [M + 1].
    """
    cutoff = jnp.maximum(x[0], math.log(jnp.finfo(x.dtype).tiny))
    tail = x[1:]
    k_hat, sigma = fit_pareto(jnp.exp(tail) - jnp.exp(cutoff))  # excesses, ascending
    spread = tail[-1] - tail[0]
    constant = spread <= 8 * jnp.finfo(x.dtype).eps  # no tail at all: equal weights
    # no shape: most of the tail ties, by rounding of weights that are all but equal, or by being
    # all of 0
    k_hat = jnp.where(jnp.isnan(k_hat), jnp.where(spread < _NEARLY_EQUAL, -jnp.inf, jnp.inf), k_hat)
    return jnp.where(constant, -jnp.inf, k_hat), sigma, cutoff


def fit_pareto(x: Array) -> tuple[Array, Array]:
    """Shape k and scale sigma of a generalised Pareto for sorted excesses x [M] (Zhang & Stephens
    2009), k shrunk towards 0.5 by a prior worth 10 excesses (Vehtari et al. 2024, appendix G).
    """
    num = x.shape[0]
    grid = 30 + math.floor(math.sqrt(num))
    quartile = x[math.floor(num / 4 + 0.5) - 1]
    i = jnp.arange(1, grid + 1)
    b = (1 - jnp.sqrt(grid / (i - 0.5))) / (3 * quartile) + 1 / x[-1]
    k = jnp.mean(jnp.log1p(-b[:, None] * x), axis=1)
    profile = num * (jnp.log(-b / k) - k - 1)
    weights = jax.nn.softmax(profile)
    weights = jnp.where(weights < 10 * jnp.finfo(x.dtype).eps, 0.0, weights)
    mean_b = jnp.sum(b * weights) / jnp.sum(weights)
    k_hat = jnp.mean(jnp.log1p(-mean_b * x))
    sigma = -k_hat / mean_b
    return (num * k_hat + 10 * 0.5) / (num + 10), sigma


def pareto_quantile(p: Array, k: Array, sigma: Array) -> Array:
    """The quantile function of the generalised Pareto, sigma ((1 - p)^-k - 1) / k."""
    near = jnp.abs(k) < 1e-8
    k = jnp.where(near, 1.0, k)
    return jnp.where(near, -sigma * jnp.log1p(-p), sigma * jnp.expm1(-k * jnp.log1p(-p)) / k)


def k_threshold(num_draws: int) -> float:
    """min(1 - 1 / log10(S), 0.7): k-hat below it is good (Vehtari et al. 2024, sec. 3.2.4)."""
    return min(1 - 1 / math.log10(num_draws), 0.7)


def effective_draws(log_weights: Array) -> Array:
    """1 / sum of squared normalised weights, of [S] normalised log-weights."""
    return jnp.exp(-jax.nn.logsumexp(2 * log_weights))
