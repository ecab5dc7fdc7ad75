"""Quieter minibatches: a control variate at a place near the mode of all rows."""

from typing import Any

import jax

from vi_jax.fitting._compile import Program, compiled, traced_once
from vi_jax.methods import _lbfgs
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

NEAR = 0.01  # nats that a step towards the mode may still win
MOST = 100  # gradients over all rows
MEMORY = 6


def anchored(target: Target, method: Method, u: Array, options: dict[str, Any]) -> tuple[Target, Array, int]:
    """The target with its minibatches anchored near a mode, the place [1, D] as a start, and what it took in gradients of all rows.

    None, where the method takes no minibatches, they need no anchor, or one place cannot serve several starts u [R, D].
    """
    anchor_at = target.anchored
    if anchor_at is None or not method.stochastic or len(u) != 1:
        return target, u, 0

    def climb(u: Array) -> tuple[Array, Array, Array, Array]:
        def going(climb: _lbfgs.Climb) -> Array:
            return (climb.evaluations < MOST) & (climb.gain > NEAR) & ~climb.stuck

        end = jax.lax.while_loop(going, lambda climb: _lbfgs.advance(target.log_density, climb)[0], _lbfgs.start(u, memory=MEMORY))
        return end.u, end.value, end.slope, end.evaluations

    (program,) = compiled(Program(options, climb, (u[0],)))
    place, value, slope, evaluations = program(u[0])
    return traced_once(anchor_at(place, value, slope)), place[None], int(evaluations)
