"""Conjugate-computation variational inference for a Gaussian chain seen through linear predictors
(Khan & Lin 2017, eq. 8-10).

Observations y_tn meet z_t only by eta_tn = c_n' z_t + d_n. The optimal Gaussian q has one site for
each step, of N numbers E_q[l'] and E_q[l''], so that the fixed point

    J_t = sum_n -E[l''_tn] c_n c_n',    h_t = sum_n E[l'_tn] c_n + J_t E[z_t]

is a natural-gradient step of length 1. A Gaussian likelihood is exact after one pass; a Poisson one
gains a digit or so a pass. Nothing is kept from one call to the next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.chains import kalman
from vi_jax.chains.expectations import Expected
from vi_jax.chains.gaussian_chain import Posterior, prior_moments
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed
from vi_jax.types import Array, freeze, select

NUM_PASSES = 6
SLACK = 1e-6  # of the ELBO, by which a pass may lose: rounding


class Emission(NamedTuple):
    """Linear predictors eta_t = C z_t + d."""

    loadings: Array  # C, [N, D]
    offset: Array  # d, [N]


class Found(NamedTuple):
    """The posterior that was found; no gradient passes through it."""

    posterior: Posterior
    elbo: Array  # nats, []
    gain: Array  # of the last pass, nats: above some 1e-2 it has not converged


class _Best(NamedTuple):
    """Sites and what they give."""

    sites: Sites
    target: Sites  # the fixed point's right-hand side there
    smoothed: Smoothed
    gains: Gains
    elbo: Array


def fit_sites(
    chain: Chain,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    *,
    num_passes: int = NUM_PASSES,
    smooth: Callable[[Chain, Sites], tuple[Smoothed, Gains]] = kalman.smooth,
) -> Found:
    """The optimal Gaussian posterior of one series, by passes of the fixed point.

    The first sites are those of the prior's own moments. A pass that lowers the ELBO is taken back,
    and half the step tried instead.

    Args:
      chain: the prior.
      emission: of N observations a step.
      expected: mean and variance of eta [T, N] -> E[log p(y | eta)] and its derivatives, each
        [T, N]; finite where nothing is observed, too. A likelihood that is not log-concave has its
        negative curvatures taken as 0.
      observed: which of them count, bool [T, N].
      num_passes: passes of the smoother, at least 1.
      smooth: the smoother.

    Returns:
      The best sites of all passes, with their moments and ELBO. Gradients with respect to the model
      are those at fixed sites (the envelope theorem): none passes through here.

    Raises:
      ValueError: num_passes is below 1.
    """
    if num_passes < 1:
        raise ValueError(f"fit_sites expects at least one pass; got {num_passes}.")
    (chain, emission) = freeze((chain, emission))
    num_steps = observed.shape[0]

    def target_at(moments: Smoothed) -> tuple[Sites, Array]:
        found = at_predictors(emission, expected, observed, moments)
        return freeze((sites_of(emission, found, moments), found.value.sum()))

    def one(carry: tuple[Sites, _Best, Array], _: Any) -> tuple[Any, Array]:
        sites, best, step = carry
        smoothed, gains = smooth(chain, sites)
        target, log_lik = target_at(smoothed)
        elbo = log_lik - kalman.expected_log_sites(sites, smoothed) + smoothed.log_z
        slack = SLACK * jnp.abs(elbo)
        is_better = elbo >= best.elbo - slack  # not where it is nan
        best = select(is_better, _Best(sites, target, smoothed, gains, elbo), best)
        step = jnp.where(is_better, 1.0, 0.5 * step)
        following = jax.tree.map(lambda a, b: a + step * (b - a), best.sites, best.target)
        return (following, best, step), best.elbo

    start, _ = target_at(prior_moments(chain, num_steps))
    shapes = jax.eval_shape(smooth, chain, start)
    smoothed, gains = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    lowest = jnp.full((), -jnp.inf, start.h.dtype)
    zeros = jax.tree.map(jnp.zeros_like, start)
    best = _Best(zeros, start, smoothed, gains, lowest)
    first = (start, best, jnp.ones((), start.h.dtype))
    (_, best, _), elbos = jax.lax.scan(one, first, None, length=num_passes)
    gain = elbos[-1] - elbos[max(num_passes - 2, 0)]
    return Found(Posterior(best.sites, best.smoothed, best.gains), best.elbo, gain)


def predictors(emission: Emission, moments: Smoothed) -> tuple[Array, Array]:
    """Mean and variance of eta, each [T, N]."""
    loadings = emission.loadings
    mean = moments.mean @ loadings.T + emission.offset
    squares = loadings[:, :, None] * loadings[:, None]
    num_steps, size = moments.mean.shape
    flat = moments.cov.reshape(num_steps, size * size)
    return mean, flat @ squares.reshape(-1, size * size).T


def at_predictors(
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    moments: Smoothed,
) -> Expected:
    """E[l] and its derivatives, [T, N], 0 where nothing is observed."""
    found = expected(*predictors(emission, moments))
    curvature = jnp.maximum(found.curvature, 0.0)
    found = found._replace(curvature=curvature)
    return jax.tree.map(lambda leaf: jnp.where(observed, leaf, 0.0), found)


def sites_of(emission: Emission, found: Expected, moments: Smoothed) -> Sites:
    """The right-hand side of the fixed point at some moments."""
    loadings = emission.loadings
    size = loadings.shape[-1]
    squares = (loadings[:, :, None] * loadings[:, None]).reshape(-1, size * size)
    J = (found.curvature @ squares).reshape(-1, size, size)
    h = found.slope @ loadings + jnp.einsum("tij,tj->ti", J, moments.mean)
    return Sites(h, J)
