"""Functions of the step: warm-up and cycles of the KL's weight, and learning rates."""

from collections.abc import Callable

import jax.numpy as jnp

from vi_jax.types import Array

__all__ = [
    "Schedule",
    "as_schedule",
    "constant",
    "cosine",
    "cyclical_warmup",
    "linear",
    "linear_warmup",
]

Schedule = Callable[[Array], Array | float]


def linear_warmup(num_steps: int, *, final: float = 1.0) -> Schedule:
    """beta from 0 to `final` over `num_steps` (Bowman et al. 2016; Sonderby et al. 2016)."""
    if num_steps < 1:
        raise ValueError(f"a warm-up needs at least 1 step; got {num_steps}.")
    return lambda step: final * jnp.clip(step / num_steps, 0.0, 1.0)


def cyclical_warmup(num_steps: int, *, ramp: float = 0.5, final: float = 1.0) -> Schedule:
    """beta rises linearly over the first part `ramp` of each cycle of `num_steps`, then stays (Fu
    et al. 2019, eq. 6).
    """
    if num_steps < 1 or not 0.0 < ramp <= 1.0:
        raise ValueError(
            f"a cycle needs at least 1 step and 0 < ramp <= 1; got {num_steps} and {ramp}."
        )
    return lambda step: final * jnp.clip((step % num_steps) / (ramp * num_steps), 0.0, 1.0)


def constant(peak: float, *, warmup_steps: int = 0) -> Schedule:
    """A linear rise from 0 over `warmup_steps`, then `peak`."""
    return _after_warmup(lambda step: peak, peak, warmup_steps)


def cosine(peak: float, *, total_steps: int, warmup_steps: int = 0) -> Schedule:
    """A linear rise from 0 over `warmup_steps`, then half a cosine from `peak` down to 0 at
    `total_steps` (Loshchilov & Hutter 2017, eq. 5, without restarts).

    Raises:
      ValueError: the warm-up is as long as the whole.
    """
    rest = _rest(total_steps, warmup_steps)

    def decay(step: Array) -> Array:
        part = jnp.clip(step / rest, 0.0, 1.0)
        return peak * 0.5 * (1.0 + jnp.cos(jnp.pi * part))

    return _after_warmup(decay, peak, warmup_steps)


def linear(peak: float, *, total_steps: int, warmup_steps: int = 0) -> Schedule:
    """A linear rise from 0 over `warmup_steps`, then a straight line from `peak` down to 0 at
    `total_steps`.

    Raises:
      ValueError: the warm-up is as long as the whole.
    """
    rest = _rest(total_steps, warmup_steps)
    return _after_warmup(
        lambda step: peak * (1.0 - jnp.clip(step / rest, 0.0, 1.0)), peak, warmup_steps
    )


def _rest(total_steps: int, warmup_steps: int) -> int:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps is at least 0 and below the {total_steps} steps of the run; got "
            f"{warmup_steps}."
        )
    return total_steps - warmup_steps


def _after_warmup(main: Schedule, peak: float, warmup_steps: int) -> Schedule:
    """A rise from 0 to `peak`, then `main` of the steps since."""
    if not warmup_steps:
        return main

    def schedule(step: Array) -> Array:
        rising = peak * step / warmup_steps
        return jnp.where(step < warmup_steps, rising, main(step - warmup_steps))

    return schedule


def as_schedule(value: float | Schedule) -> Schedule:
    """A function of the step, from a number or a function."""
    return value if callable(value) else lambda step: value
