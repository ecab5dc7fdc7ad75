"""Quieter minibatches: a control variate at a place near the mode of all rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.fitting._compile import Program, traced_once
from vi_jax.methods import _lbfgs
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

NEAR = 0.01  # nats that a step towards the mode may still win
MOST = 100  # gradients over all rows
MEMORY = 6


def wanted(target: Target, method: Method, num_starts: int) -> bool:
    """Whether minibatches are to be anchored: not where the method takes none, or one place cannot
    serve several starts.
    """
    return target.anchored is not None and method.stochastic and num_starts == 1


def climb(target: Target, dtype: Any, options: dict[str, Any]) -> Program:
    """u [D] of that type -> the place near a mode, the log density and its gradient there, the
    gradients that it took.
    """

    def up(u: Array) -> tuple[Array, Array, Array, Array]:
        def going(climb: _lbfgs.Climb) -> Array:
            return (climb.evaluations < MOST) & (climb.gain > NEAR) & ~climb.stuck

        end = jax.lax.while_loop(
            going,
            lambda climb: _lbfgs.advance(target.log_density, climb)[0],
            _lbfgs.start(u, memory=MEMORY),
        )
        return end.u, end.value, end.slope, end.evaluations

    return Program(options, up, (jnp.zeros(target.size, dtype),))


def anchored(
    target: Target, u: Array, run: Callable[[Array], tuple[Array, ...]]
) -> tuple[Target, Array, int]:
    """The target with its minibatches anchored near a mode, that place [1, D] as a start, the
    gradients that it took.
    """
    place, value, slope, evaluations = run(u[0])
    assert target.anchored is not None
    return traced_once(target.anchored(place, value, slope)), place[None], int(evaluations)
