"""The Gaussian nearest to a density whose Hessian is sparse: Newton's steps to its mode, then steps
of the ELBO.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.optimise import curvature as hessians
from vi_jax.optimise.curvature import Curvature
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse.arrow import Blocks
from vi_jax.types import Array, LogDensity, select

MAX_NEWTON_STEPS = 60
MAX_GAIN = 1e-4  # nats that another Newton step may promise at the mode
ROUNDINGS = 8.0  # of the log density, which it may promise too
DAMPING = 0.1, 8.0  # the first, in units of the diagonal, and its factor
MIN_DAMPING = 1e-2  # below it there is none
NUM_ELBO_STEPS = 2


class Inner(NamedTuple):
    """The Gaussian N(mean, (L L')^-1), and Laplace's estimate of the density's integral."""

    mean: Array  # [n]
    factor: Blocks  # L
    log_integral: Array  # nats; -inf where no mode was found
    mode: Array  # [n]
    evaluations: Array  # int32, gradients


class _Point(NamedTuple):
    z: Array
    value: Array
    slope: Array
    entries: Array  # of the Hessian


class _Search(NamedTuple):
    here: _Point
    damping: Array
    gain: Array  # nats that the last step promised
    steps: Array


def solve(log_density: LogDensity, start: Array, signs: Array, made: Curvature) -> Inner:
    """The mode by Newton's steps with Levenberg & Marquardt's damping, then two natural-gradient
    steps of length 1 of the ELBO: mean and precision by the gradients and Hessians at the two
    points mean +- L'^-1 e with e of signs, which integrate cubics exactly where latents are
    independent.

    Args:
      log_density: of z [n].
      start: z [n].
      signs: e [n].
      made: where its Hessian is not zero.
    """
    found = _mode(log_density, start, made)
    here = found.here
    laplace = _factor(made, here.entries)
    size = start.size
    integral = here.value + size * HALF_LOG_TWO_PI - blocked.log_det(made.arrow, laplace)
    is_mode = jnp.isfinite(integral) & (found.steps < MAX_NEWTON_STEPS)

    mean = here.z
    factor = laplace
    for _ in range(NUM_ELBO_STEPS):
        mean, factor = _elbo_step(log_density, mean, factor, signs, made)
    # a step that left the region where the density is concave is none
    good = jnp.all(jnp.isfinite(mean)) & jnp.isfinite(blocked.log_det(made.arrow, factor))
    mean, factor = select(good, (mean, factor), (here.z, laplace))
    spent = (found.steps + 1 + 2 * NUM_ELBO_STEPS) * (1 + made.cost)
    integral = jnp.where(is_mode, integral, -jnp.inf)
    return Inner(mean, factor, integral, here.z, spent.astype(jnp.int32))


def _factor(made: Curvature, entries: Array) -> Blocks:
    return blocked.cholesky(made.arrow, hessians.blocks(made, -entries))


def _solved(made: Curvature, factor: Blocks, x: Array) -> Array:
    """(L L')^-1 x."""
    return blocked.solve_upper(made.arrow, factor, blocked.solve_lower(made.arrow, factor, x))


def _mode(log_density: LogDensity, start: Array, made: Curvature) -> _Search:
    is_diagonal = made.colouring.rows == made.colouring.columns

    def at(z: Array) -> _Point:
        return _Point(z, *hessians.entries(log_density, z, made.colouring))

    def unfinished(search: _Search) -> Array:
        rounding = ROUNDINGS * jnp.finfo(start.dtype).eps * jnp.abs(search.here.value)
        close = search.gain < MAX_GAIN + rounding
        return ~(close & (search.damping == 0)) & (search.steps < MAX_NEWTON_STEPS)

    def step(search: _Search) -> _Search:
        here = search.here
        ridge = jnp.where(is_diagonal, search.damping * jnp.abs(here.entries), 0.0)
        damped = here.entries - ridge
        move = _solved(made, _factor(made, damped), here.slope)
        gain = 0.5 * here.slope @ move
        there = at(here.z + move)
        slack = ROUNDINGS * jnp.finfo(start.dtype).eps * jnp.abs(here.value)
        good = jnp.isfinite(there.value) & (there.value >= here.value - slack)
        good = good & jnp.all(jnp.isfinite(there.entries)) & jnp.isfinite(gain)
        less = search.damping / DAMPING[1]
        less = jnp.where(less < MIN_DAMPING, 0.0, less)
        more = jnp.maximum(DAMPING[0], search.damping * DAMPING[1])
        return _Search(
            select(good, there, here),
            jnp.where(good, less, more),
            jnp.where(good, gain, jnp.inf),
            search.steps + 1,
        )

    zero = jnp.zeros((), start.dtype)
    first = _Search(at(start), zero, zero + jnp.inf, jnp.int32(0))
    return jax.lax.while_loop(unfinished, step, first)


def _elbo_step(
    log_density: LogDensity, mean: Array, factor: Blocks, signs: Array, made: Curvature
) -> tuple[Array, Blocks]:
    away = blocked.solve_upper(made.arrow, factor, signs)
    points = mean + jnp.stack([away, -away])
    _, slopes, entries = jax.vmap(lambda z: hessians.entries(log_density, z, made.colouring))(
        points
    )
    factor = _factor(made, entries.mean(0))
    return mean + _solved(made, factor, slopes.mean(0)), factor
