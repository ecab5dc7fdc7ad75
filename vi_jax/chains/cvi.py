"""Conjugate-computation variational inference for a Gaussian chain seen through linear predictors
(Khan & Lin 2017, eq. 8-10).

Observations y_tn meet z_t only by eta_tn = c_n' z_t + d_n. The optimal Gaussian q has one site for
each step, of N numbers E_q[l'] and E_q[l''], so that the fixed point

    J_t = sum_n -E[l''_tn] c_n c_n',    h_t = sum_n E[l'_tn] c_n + J_t E[z_t]

is a natural-gradient step of length 1. A Gaussian likelihood is exact after one pass; a Poisson one
gains a digit or so a pass. Nothing is kept from one call to the next.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.chains import kalman
from vi_jax.chains.expectations import Expected
from vi_jax.chains.gaussian_chain import Posterior, prior_moments
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed
from vi_jax.chains.linear_sites import (
    Emission,
    at_known,
    at_modes_where,
    at_predictors,
    frozen,
    rounding,
    sites_of,
    weighted_squares,
)
from vi_jax.types import Array, freeze, select

NUM_PASSES = 6
MAX_PASSES = 60  # of a series that has not converged after those asked for
MAX_GAIN = 1e-2  # nats of the last pass, of one that has
MIN_STEP = 1e-3  # below it no pass is better


class Found(NamedTuple):
    """The posterior that was found; no gradient passes through it."""

    posterior: Posterior
    elbo: Array  # nats, []
    gain: Array  # of the last pass that was taken, nats: above MAX_GAIN it has not converged


class _Best(NamedTuple):
    """Sites and what they give."""

    sites: Sites
    target: Sites  # the fixed point's right-hand side there
    smoothed: Smoothed
    gains: Gains
    elbo: Array
    slack: Array  # its rounding, nats


class _Search(NamedTuple):
    """Where the passes of a series stand."""

    best: _Best
    sites: Sites  # to be tried
    stage: Array  # what they are: _USUAL, ...
    step: Array  # that led to them
    gain: Array  # nats
    passes: Array  # that are done


class _Series(NamedTuple):
    """What a pass is given, beside the sites."""

    chain: Chain
    emission: Emission
    expected: Callable[[Array, Array], Expected]
    observed: Array
    smooth: Callable[[Chain, Sites], tuple[Smoothed, Gains]]
    at_zero: Expected  # at z = 0
    lowest: Array  # the ELBO of a start that is any good, nats


(_START, _NARROW, _MODES, _USUAL) = range(4)  # stages of a search


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
    and half the step tried instead; after one that does not, the step is doubled, up to 1. Beyond
    num_passes there are more, up to MAX_PASSES, while the last one gained more than MAX_GAIN.

    Of counts that are large, or a prior that is wide, the first pass may end far above all rates,
    from where each further one comes down by a factor of e only. Where it is worse than z = 0 is,
    the passes start at sites that hold z near 0, and at modes of each observation, whichever is
    better.

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
    expected = frozen(expected)

    at_zero = at_known(expected, observed, emission.offset)
    lowest = at_zero.value.sum() - jnp.abs(at_zero.value.sum())
    series = _Series(chain, emission, expected, observed, smooth, at_zero, lowest)
    moments = prior_moments(chain, observed.shape[0])
    start = sites_of(emission, at_predictors(emission, expected, observed, moments), moments)
    shapes = jax.eval_shape(smooth, chain, start)
    smoothed, gains = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    zero = jnp.zeros((), start.h.dtype)
    none = jax.tree.map(jnp.zeros_like, start)
    best = _Best(none, none, smoothed, gains, zero - jnp.inf, zero)
    search = _Search(best, start, jnp.int32(_START), zero + 1.0, zero, jnp.int32(0))
    (best, _, _, _, gain, _) = jax.lax.while_loop(
        partial(_goes_on, num_passes), partial(_pass, series), search
    )
    return Found(Posterior(best.sites, best.smoothed, best.gains), best.elbo, gain)


def _pass(series: _Series, search: _Search) -> _Search:
    """One pass: the smoother at some sites, and the sites that follow."""
    (best, sites, stage, step, gain, passes) = search
    # 1. the ELBO there
    smoothed, gains = series.smooth(series.chain, sites)
    found = at_predictors(series.emission, series.expected, series.observed, smoothed)
    log_lik = found.value.sum()
    elbo = log_lik - kalman.expected_log_sites(sites, smoothed) + smoothed.log_z
    elbo = jnp.minimum(elbo, log_lik)  # no KL is negative, whatever rounding says
    slack = rounding(log_lik, sites, smoothed)
    target = sites_of(series.emission, found, smoothed)
    new = _Best(sites, target, smoothed, gains, elbo, slack)
    # 2. whether it is taken; it is not where it is nan
    least = elbo - slack
    has_failed = (stage == _START) & ~(least >= series.lowest)
    is_better = jnp.isfinite(least) & (least >= best.elbo - 2.0 * best.slack) & ~has_failed
    gained = jnp.where(jnp.isfinite(best.elbo), elbo - best.elbo, 0.0)
    gain = jnp.where(is_better, gained, gain)
    best = select(is_better, new, best)
    step = jnp.where(is_better, jnp.minimum(2.0 * step, 1.0), 0.5 * step)
    # 3. what is tried next
    following = jax.tree.map(lambda a, b: a + step * (b - a), best.sites, best.target)
    following = select(has_failed, _narrow_sites(series), following)
    given = (series.emission, series.expected, series.observed)
    following = at_modes_where(stage == _NARROW, *given, following)
    stage = jnp.where((stage == _NARROW) | has_failed, stage + 1, _USUAL)
    return _Search(best, following, stage, step, gain, passes + 1)


def _goes_on(num_passes: int, search: _Search) -> Array:
    elbo = search.best.elbo
    has_gained = search.gain > MAX_GAIN + search.best.slack
    is_open = has_gained | (search.step < 1.0) | ~jnp.isfinite(elbo)
    more = is_open & (search.step > MIN_STEP) & (search.passes < MAX_PASSES)
    return more | (search.passes < num_passes)


def _narrow_sites(series: _Series) -> Sites:
    """Sites that hold z so near 0 that no predictor's variance is above 1."""
    weights = jnp.where(series.observed, jnp.maximum(series.at_zero.curvature, 1.0), 0.0)
    J = weighted_squares(series.emission, weights)
    return Sites(jnp.zeros(J.shape[:-1], J.dtype), J)
