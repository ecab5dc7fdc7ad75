"""Weights of the KL as functions of the step: warm-up and cycles."""

from collections.abc import Callable

import jax.numpy as jnp

from vi_jax.types import Array

Schedule = Callable[[Array], Array | float]


def linear_warmup(num_steps: int, *, final: float = 1.0) -> Schedule:
    """beta from 0 to `final` over `num_steps` (Bowman et al. 2016; Sonderby et al. 2016)."""
    if num_steps < 1:
        raise ValueError(f"a warm-up expects at least 1 step; got {num_steps}.")
    return lambda step: final * jnp.clip(step / num_steps, 0.0, 1.0)


def cyclical_warmup(num_steps: int, *, ramp: float = 0.5, final: float = 1.0) -> Schedule:
    """beta rises linearly over the first part `ramp` of each cycle of `num_steps`, then stays (Fu
    et al. 2019, eq. 6).
    """
    if num_steps < 1 or not 0.0 < ramp <= 1.0:
        raise ValueError(
            f"a cycle expects at least 1 step and 0 < ramp <= 1; got {num_steps} and {ramp}."
        )
    return lambda step: final * jnp.clip((step % num_steps) / (ramp * num_steps), 0.0, 1.0)


def as_schedule(value: float | Schedule) -> Schedule:
    """A function of the step, from a number or a function."""
    return value if callable(value) else lambda step: value
