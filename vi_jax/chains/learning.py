"""Closed-form learning of chains and linear predictors: expected sufficient statistics of one
series, and the parameters at the optimum of their mean (expectation-maximisation).

The dynamics are a regression of z_(t+1) on z_t (Ghahramani & Hinton 1996, eq. 13-26), of sums over
all series that are divided after. The predictors take one Newton step of E[log p(y | eta)], which
is concave for log-concave likelihoods (Macke et al. 2011, sec. 3) and quadratic, so exact, for a
Gaussian. Its statistics are the quadratic at the old parameters, so that they can be averaged over
minibatches, too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains.expectations import ExpectedLogLik
from vi_jax.chains.kalman import Chain, Smoothed
from vi_jax.chains.linear_sites import Emission, predictors
from vi_jax.chains.small import symmetric
from vi_jax.types import Array

MAX_STEP = 1.0  # of a loading or an offset at a time
JITTER = 4.0  # units of rounding, of a covariance's mean variance, added to it


class ChainStats(NamedTuple):
    """Sums over the steps of one series, or their means over series."""

    first: Array  # E[z_1], [D]
    first_second: Array  # E[z_1 z_1'], [D, D]
    before: Array  # sum over t < T of E[z_t z_t'], [D, D]
    after: Array  # sum over t > 1 of E[z_t z_t'], [D, D]
    across: Array  # sum of E[z_(t+1) z_t'], [D, D]
    num_moves: Array  # T - 1, []


class EmissionStats(NamedTuple):
    """The quadratic of the expected log-likelihood in (c_n, d_n), [N, ...]."""

    linear: Array  # its maximum is at precision^-1 linear, [N, D + 1]
    precision: Array  # [N, D + 1, D + 1]


def chain_stats(of: Smoothed) -> ChainStats:
    """The statistics of one series."""
    second = of.cov + of.mean[..., None] * of.mean[..., None, :]
    crossed = of.cross + of.mean[:-1, :, None] * of.mean[1:, None]
    return ChainStats(
        of.mean[0],
        second[0],
        second[:-1].sum(0),
        second[1:].sum(0),
        crossed.sum(0).T,
        jnp.full((), len(of.mean) - 1, of.mean.dtype),
    )


def chain_of(stats: ChainStats) -> Chain:
    """The chain at the optimum of mean statistics."""
    transition = linalg.solve(steadied(stats.before), stats.across.T).T
    noise = (stats.after - transition @ stats.across.T) / stats.num_moves
    start = stats.first_second - jnp.outer(stats.first, stats.first)
    return Chain(stats.first, steadied(start), transition, steadied(noise))


def steadied(cov: Array) -> Array:
    """The symmetric part with a few units of rounding on its diagonal."""
    size = cov.shape[-1]
    share = JITTER * size * jnp.finfo(cov.dtype).eps
    return symmetric(cov) + share * jnp.trace(cov) / size * jnp.eye(size, dtype=cov.dtype)


def emission_stats(
    emission: Emission, expected: ExpectedLogLik, observed: Array, of: Smoothed
) -> EmissionStats:
    """The statistics of one series at the emission's present parameters.

    Args:
      emission: as it stands.
      expected: mean and variance of eta [T, N] -> E[log p(y | eta)], [T, N].
      observed: bool, [T, N].
      of: moments of the series.
    """

    def summed(function: ExpectedLogLik) -> ExpectedLogLik:
        return lambda mean, variance: jnp.where(observed, function(mean, variance), 0.0).sum()

    def first(mean: Array, variance: Array) -> tuple[Array, Array]:
        return jax.grad(summed(expected), (0, 1))(mean, variance)

    # 1. derivatives of E[l] in the mean and the variance of each eta, elementwise
    mean, variance = predictors(emission, of)
    ones = jnp.ones_like(mean)
    zeros = jnp.zeros_like(mean)
    (by_mean, by_var), (mean_mean, mean_var) = jax.jvp(first, (mean, variance), (ones, zeros))
    _, (_, var_var) = jax.jvp(first, (mean, variance), (zeros, ones))
    # 2. how these move with (c_n, d_n): the mean by (m_t, 1), the variance by (2 S_t c_n, 0)
    num_steps, size = of.mean.shape
    moved = jnp.concatenate([of.mean, jnp.ones((num_steps, 1), mean.dtype)], axis=1)
    pulled = 2.0 * jnp.einsum("tij,nj->tni", of.cov, emission.loadings)
    pulled = jnp.pad(pulled, ((0, 0), (0, 0), (0, 1)))
    gradient = by_mean.T @ moved + jnp.einsum("tn,tni->ni", by_var, pulled)
    # 3. minus the Hessian
    products = (moved[:, :, None] * moved[:, None]).reshape(num_steps, -1)
    curved = -(mean_mean.T @ products).reshape(-1, size + 1, size + 1)
    mixed = -jnp.einsum("tn,ti,tnj->nij", mean_var, moved, pulled)
    spread = -jnp.einsum("tn,tni,tnj->nij", var_var, pulled, pulled)
    within = -2.0 * (by_var.T @ of.cov.reshape(num_steps, -1)).reshape(-1, size, size)
    within = jnp.pad(within, ((0, 0), (0, 1), (0, 1)))
    precision = curved + mixed + jnp.swapaxes(mixed, -1, -2) + spread + within
    present = jnp.concatenate([emission.loadings, emission.offset[:, None]], axis=1)
    linear = gradient + jnp.einsum("nij,nj->ni", precision, present)
    return EmissionStats(linear, precision)


def emission_of(stats: EmissionStats, emission: Emission) -> Emission:
    """The emission at the optimum of mean statistics, at most MAX_STEP away from the present."""
    present = jnp.concatenate([emission.loadings, emission.offset[:, None]], axis=1)
    precision = jax.vmap(steadied)(stats.precision)
    # of an unobserved unit nothing is known: it stays
    known = jnp.trace(precision, axis1=-2, axis2=-1) > 0.0
    identity = jnp.eye(present.shape[1], dtype=present.dtype)
    precision = jnp.where(known[:, None, None], precision, identity)
    best = linalg.solve(precision, stats.linear[..., None])[..., 0]
    step = jnp.where(known[:, None], best - present, 0.0)
    largest = jnp.abs(step).max(-1, keepdims=True)
    step = step * jnp.minimum(1.0, MAX_STEP / jnp.maximum(largest, MAX_STEP))
    moved = present + step
    return Emission(moved[:, :-1], moved[:, -1])
