"""Minibatches with less noise, by a control variate near the mode of all rows (as in SVRG)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.fitting._compile import Program, traced_once
from vi_jax.optimise import lbfgs
from vi_jax.targets.target import Target
from vi_jax.types import Array, Method

SEARCH_TOLERANCE = 0.01  # nats that a step towards the mode may still win
MAX_GRADIENTS = 100  # gradients over all rows
MEMORY = 6


def applies(target: Target, method: Method, num_starts: int) -> bool:
    """Whether minibatches have a control variate: not where the method takes none, nor for several
    starts, which one location cannot serve.
    """
    return target.control_variate is not None and method.stochastic and num_starts == 1


def search(target: Target, dtype: Any, options: dict[str, Any]) -> Program:
    """u [D] of that type -> a location near a mode, the log density and its gradient there, the
    gradients that it took.
    """

    def up(u: Array) -> tuple[Array, Array, Array, Array]:
        def going(search: lbfgs.State) -> Array:
            return (
                (search.evaluations < MAX_GRADIENTS)
                & (search.gain > SEARCH_TOLERANCE)
                & ~search.stuck
            )

        end = jax.lax.while_loop(
            going,
            lambda search: lbfgs.advance(target.log_density, search)[0],
            lbfgs.start(u, memory=MEMORY),
        )
        return end.u, end.value, end.slope, end.evaluations

    return Program(options, up, (jnp.zeros(target.size, dtype),))


def added(
    target: Target, u: Array, run: Callable[[Array], tuple[Array, ...]]
) -> tuple[Target, Array, int]:
    """The target whose minibatches have a control variate near a mode, that location [1, D] as a
    start, the gradients that it took.
    """
    u_mode, value, slope, evaluations = run(u[0])
    assert target.control_variate is not None
    return traced_once(target.control_variate(u_mode, value, slope)), u_mode[None], int(evaluations)
