"""How long a program would take at least, by its matrix products, and the refusal of days."""

import time

import jax
import jax.numpy as jnp

from experiments.errors import UserError
from experiments.run import processes

SLOW_SECONDS = 3 * 24 * 3600.0  # of importance sampling before it is refused
NOTED_SECONDS = 600.0  # of it before a line says how long it will take


def require_time(flops: float, what: str) -> None:
    """Refuses what would take days by its matrix products alone; says so of what takes minutes."""
    if flops < 1e13:
        return
    seconds = flops / rate()
    if seconds > SLOW_SECONDS:
        raise UserError(
            f"{what} takes at least {seconds / 86400:,.0f} days here; take fewer samples, or a "
            "faster machine."
        )
    if seconds > NOTED_SECONDS:
        processes.say(f"note: {what} takes at least {seconds / 60:,.0f} minutes here.")


def rate(size: int = 1024) -> float:
    """Floating-point operations a second of a matrix product, on all devices together."""
    matrix = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    best = 0.0
    for _ in range(5):  # the fastest: others may be using the machine
        began = time.perf_counter()
        product(matrix).block_until_ready()
        best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    accelerators = sum(device.platform != "cpu" for device in jax.devices())
    return best * max(accelerators, 1)
