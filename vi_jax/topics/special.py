"""digamma and log Gamma of positive numbers, without branches."""

import jax.numpy as jnp

from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array


def psi(x: Array) -> Array:
    """digamma(x), x > 0: psi(x + 6) by its asymptotic series (Abramowitz & Stegun 6.3.18) less the
    sum of 1 / (x + i), i = 0..5, in pairs. Its error is below 1e-11, or that of the type.

    `jax.scipy.special.digamma` has branches for negative numbers and is nan at subnormal ones.
    """
    total = (2 * x + 1) / (x * (x + 1))
    total += (2 * x + 5) / ((x + 2) * (x + 3))
    total += (2 * x + 9) / ((x + 4) * (x + 5))
    y = x + 6
    r = 1 / (y * y)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132)))))
    return jnp.log(y) - 0.5 / y - series - total


def trigamma(x: Array) -> Array:
    """The derivative of psi, x > 0 (Abramowitz & Stegun 6.4.12)."""
    total = sum((1 / (x + i) ** 2 for i in range(1, 6)), 1 / x**2)
    y = x + 6
    r = 1 / (y * y)
    series = r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30))))
    return 1 / y + 0.5 * r + series / y + total


def log_gamma(x: Array) -> Array:
    """log Gamma(x), x > 0, by Stirling's series at x + 6 (Abramowitz & Stegun 6.1.41)."""
    product = jnp.log(x * (x + 1)) + jnp.log((x + 2) * (x + 3)) + jnp.log((x + 4) * (x + 5))
    y = x + 6
    r = 1 / (y * y)
    series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680)))) / y
    return (y - 0.5) * jnp.log(y) - y + HALF_LOG_TWO_PI + series - product
