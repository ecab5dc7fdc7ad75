"""Passes of a fixed point that never lose: steps of natural parameters towards the fixed point's
right-hand side, judged by the ELBO less its rounding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.chains.expectations import Expected
from vi_jax.chains.kalman import Sites
from vi_jax.chains.linear_sites import Emission, at_known, at_modes_where, weighted_squares
from vi_jax.types import Array, select

MAX_PASSES = 60  # of a series that has not converged after those asked for
MAX_GAIN = 1e-2  # nats of the last pass, of one that has
MIN_STEP = 1e-3  # below it no pass is better
JITTER = 0.25  # of an ELBO's rounding at most, by which that of converged passes moves

(_START, _NARROW, _MODES, _USUAL) = range(4)  # stages of a search


class Tried(NamedTuple):
    """What a pass finds at some natural parameters."""

    naturals: Any  # they themselves: sites, and what else the posterior is given by
    target: Any  # the fixed point's right-hand side there, of the same form
    result: Any  # the posterior
    elbo: Array  # nats, []
    slack: Array  # its rounding, nats


class Starts(NamedTuple):
    """Natural parameters to begin with."""

    usual: Any
    lowest: Array  # the ELBO of a start that is any good, nats
    narrow: Any  # in its place where it is worse than that
    # (whether they are asked for, what is there) -> what is there, or modes of each observation
    at_modes_where: Callable[[Array, Any], Any]


class Ascent(NamedTuple):
    """Where the passes of a series ended."""

    best: Tried
    # of the last pass that was taken, nats beyond rounding: above MAX_GAIN it has not converged
    gain: Array


class _Search(NamedTuple):
    """Where they stand."""

    best: Tried
    naturals: Any  # to be tried
    stage: Array  # what they are: _USUAL, ...
    step: Array  # that led to them
    gain: Array  # nats beyond rounding, at least 0
    passes: Array  # that are done


def ascend(try_at: Callable[[Any], Tried], starts: Starts, num_passes: int) -> Ascent:
    """The best of at least num_passes passes, each a step to the fixed point's right-hand side.

    A pass that lowers the ELBO is taken back, and half the step tried instead; after one that does
    not, the step is doubled, up to 1. Beyond num_passes there are more, up to MAX_PASSES, while the
    last one gained more than MAX_GAIN. Where the start is worse than it may be, the passes begin
    anew at the narrow one, and at modes, whichever is better.
    """
    shapes = jax.eval_shape(try_at, starts.usual)
    best = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    zero = jnp.zeros_like(best.elbo)
    best = best._replace(elbo=zero - jnp.inf)
    search = _Search(best, starts.usual, jnp.int32(_START), zero + 1.0, zero, jnp.int32(0))
    search = jax.lax.while_loop(
        partial(_goes_on, num_passes), partial(_pass, try_at, starts), search
    )
    return Ascent(search.best, search.gain)


def _pass(try_at: Callable[[Any], Tried], starts: Starts, search: _Search) -> _Search:
    """One pass, and the natural parameters that follow."""
    (best, naturals, stage, step, gain, passes) = search
    new = try_at(naturals)
    # 1. whether it is taken; it is not where it is nan
    least = new.elbo - new.slack
    has_failed = (stage == _START) & ~(least >= starts.lowest)
    is_better = jnp.isfinite(least) & (least >= best.elbo - 2.0 * best.slack) & ~has_failed
    gained = jnp.maximum(new.elbo - best.elbo - JITTER * new.slack, 0.0)
    gained = jnp.where(jnp.isfinite(best.elbo), gained, 0.0)
    gain = jnp.where(is_better, gained, gain)
    best = select(is_better, new, best)
    step = jnp.where(is_better, jnp.minimum(2.0 * step, 1.0), 0.5 * step)
    # 2. what is tried next
    following = jax.tree.map(lambda a, b: a + step * (b - a), best.naturals, best.target)
    following = select(has_failed, starts.narrow, following)
    following = starts.at_modes_where(stage == _NARROW, following)
    stage = jnp.where((stage == _NARROW) | has_failed, stage + 1, _USUAL)
    return _Search(best, following, stage, step, gain, passes + 1)


def _goes_on(num_passes: int, search: _Search) -> Array:
    elbo = search.best.elbo
    has_gained = search.gain > MAX_GAIN
    is_open = has_gained | (search.step < 1.0) | ~jnp.isfinite(elbo) | (search.stage == _MODES)
    more = is_open & (search.step > MIN_STEP) & (search.passes < MAX_PASSES)
    return more | (search.passes < num_passes)


def starts_of(
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    usual: Sites,
) -> Starts:
    """Sites to begin with: of a likelihood, the usual ones, those that hold z so near 0 that no
    predictor's variance is above 1, and those at modes.
    """
    at_zero = at_known(expected, observed, emission.offset)
    log_lik = at_zero.value.sum()
    weights = jnp.where(observed, jnp.maximum(at_zero.curvature, 1.0), 0.0)
    J = weighted_squares(emission, weights)
    narrow = Sites(jnp.zeros(J.shape[:-1], J.dtype), J)

    def at_modes(asked: Array, sites: Sites) -> Sites:
        return at_modes_where(asked, emission, expected, observed, sites)

    return Starts(usual, log_lik - jnp.abs(log_lik), narrow, at_modes)
