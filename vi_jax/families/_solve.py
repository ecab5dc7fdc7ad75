"""Roots of increasing functions, with the derivatives of the implicit function theorem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.types import Array, freeze

BISECTIONS = 30
NEWTON_STEPS = 4


def find_root(f: Callable[[Array, Any], Array], args: Any, low: Array, high: Array) -> Array:
    """The x of f(x, args) = 0 for an increasing f of a scalar that changes sign on [low, high];
    carries no derivative.

    Bisection to 2^-30 of the bracket, then Newton's steps that stay within it.
    """
    args, low, high = freeze((args, low, high))

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = f(middle, args) < 0.0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))

    def newton(_: Array, x: Array) -> Array:
        value, slope = jax.jvp(lambda x: f(x, args), (x,), (jnp.ones_like(x),))
        return jnp.clip(x - value / jnp.maximum(slope, jnp.finfo(x.dtype).tiny), low, high)

    return freeze(jax.lax.fori_loop(0, NEWTON_STEPS, newton, 0.5 * (low + high)))


def attach_derivatives(step: Callable[[Array, Any], Array], args: Any, root: Array) -> Array:
    """The root as a function of `args`: two of Newton's steps from it, `step(x, args) = x -
    f'(x)^-1 f(x, args)`.

    At a root one step moves nothing and has the first derivative of the implicit function theorem;
    two have the second and third.
    """
    return step(step(freeze(root), args), args)
