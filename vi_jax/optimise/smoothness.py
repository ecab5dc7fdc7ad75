"""Smoothness of a log density: kinks and steps, which curvature does not show."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array, LogDensity

NUM_SEGMENTS = 4, 2  # for jumps of the gradient, and of the density
RADIUS = 2.0  # of the cube in which their ends lie
# to a length of about 1e-4: what turns within that is a kink to any step that is longer
NUM_HALVINGS = 14
STABLE_HALVINGS = 4  # halvings over which a jump stays the same
MIN_JUMP_SHARE = 0.5  # of a change that is a jump, at the least
MIN_JUMP_ROUNDINGS = 100.0  # units of rounding that a jump has to be larger than
# gradients: a segment takes two ends, and at each halving the middle and two derivatives along it,
# of which the gradient's count 2
NUM_GRADIENTS = NUM_SEGMENTS[0] * (2 + 5 * NUM_HALVINGS) + NUM_SEGMENTS[1] * (2 + 3 * NUM_HALVINGS)


class Smoothness(NamedTuple):
    """What was found across the segments; 0 where nothing."""

    kink: Array  # the largest jump of the gradient, its norm, nats per unit
    step: Array  # the largest jump of the log density, nats


def smoothness(key: Array, log_density: LogDensity, centre: Array) -> Smoothness:
    """The jumps of a log density and of its gradient on random segments, found by halving.

    By the mean value theorem a smooth field g changes by g(b) - g(a) = int g'(a + t (b - a)) (b -
    a) dt; the midpoint rule (Gauss and Legendre's of one point) errs by O(|b - a|^3). Across a jump
    J it errs by J however short the segment is. So each segment is halved towards the half where
    the rule errs more. It holds a jump if in the end the error is most of the change, has been the
    same vector for the last four halvings, and is above rounding.

    Args:
      log_density: of u [D], twice differentiable by JAX, where it has derivatives.
      centre: u [D] about which the segments lie.

    Returns:
      Smoothness. What no segment crosses is not seen, nor are jumps that are small beside the
      gradient's own change within 1e-4; locations that are not finite say nothing.
    """
    key_kink, key_step = jax.random.split(key)
    slope = jax.grad(log_density)
    (kinks, steps) = NUM_SEGMENTS

    def largest(key: Array, field: Callable[[Array], Array], number: int) -> Array:
        ends = centre + jax.random.uniform(
            key, (2, number, centre.size), centre.dtype, minval=-RADIUS, maxval=RADIUS
        )
        return jnp.max(jax.lax.map(lambda pair: _jump(field, pair[0], pair[1]), (ends[0], ends[1])))

    return Smoothness(
        largest(key_kink, slope, kinks), largest(key_step, lambda u: log_density(u)[None], steps)
    )


class _Segment(NamedTuple):
    a: Array  # [D]
    b: Array  # [D]
    at_a: Array  # field there [M]
    at_b: Array


def _error(field: Callable[[Array], Array], segment: _Segment) -> Array:
    """The change of the field less the midpoint rule's, [M]."""
    middle = 0.5 * (segment.a + segment.b)
    along = segment.b - segment.a
    return segment.at_b - segment.at_a - jax.jvp(field, (middle,), (along,))[1]


def _jump(field: Callable[[Array], Array], a: Array, b: Array) -> Array:
    """The norm of the jump on the segment from a to b; 0 for none."""

    def halve(segment: _Segment, _: None) -> tuple[_Segment, Array]:
        middle = 0.5 * (segment.a + segment.b)
        at = field(middle)
        halves = (
            _Segment(segment.a, middle, segment.at_a, at),
            _Segment(middle, segment.b, at, segment.at_b),
        )
        errors = jnp.stack([_error(field, half) for half in halves])  # [2, M]
        which = jnp.argmax(jnp.linalg.norm(errors, axis=1))
        return jax.tree.map(
            lambda left, right: jnp.where(which == 0, left, right), *halves
        ), errors[which]

    end, errors = jax.lax.scan(halve, _Segment(a, b, field(a), field(b)), None, length=NUM_HALVINGS)
    jump = errors[-1]
    late = errors[-1 - STABLE_HALVINGS : -1]
    size = jnp.linalg.norm(jump)
    same = jnp.all(jnp.linalg.norm(late - jump, axis=1) < (1 - MIN_JUMP_SHARE) * size)
    most = size > MIN_JUMP_SHARE * jnp.linalg.norm(end.at_b - end.at_a)
    noise = (
        MIN_JUMP_ROUNDINGS
        * jnp.finfo(a.dtype).eps
        * jnp.maximum(jnp.linalg.norm(end.at_a), jnp.linalg.norm(end.at_b))
    )
    return jnp.where(same & most & (size > noise), size, 0.0)


def measured(key: Array, log_density: LogDensity, centre: Array) -> Smoothness | None:
    """`smoothness`, compiled; None where JAX has no second derivative of this density."""
    try:
        found: Any = jax.jit(partial(smoothness, log_density=log_density))(key, centre=centre)
    except (TypeError, ValueError, NotImplementedError):
        return None
    return found
