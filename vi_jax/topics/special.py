"""digamma and log Gamma of positive numbers, without branches."""

import jax.numpy as jnp

from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array

_LEAST = 6.0  # from here on the series are exact to 1e-11


def _product(x: Array) -> Array:
    """u = x (x + 5), with which x (x + 1) ... (x + 5) = u (u + 4) (u + 6); x below 6."""
    return x * (x + 5)


def psi(x: Array) -> Array:
    """digamma(x), x > 0, by its asymptotic series from 6 on (Abramowitz & Stegun 6.3.18), below
    at x + 6 less the sum of 1 / (x + i), i = 0..5. Its error is below 1e-11, or that of the type.

    `jax.scipy.special.digamma` has branches for negative numbers and is nan at subnormal ones.
    """
    is_small = x < _LEAST
    u = _product(jnp.minimum(x, _LEAST))
    total = (2 * x + 5) * (u * (3 * u + 20) + 24) / (u * (u + 4) * (u + 6))
    y = jnp.where(is_small, x + 6, x)
    inverse = 1 / y
    r = inverse * inverse
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132)))))
    return jnp.log(y) - 0.5 * inverse - series - jnp.where(is_small, total, 0.0)


def trigamma(x: Array) -> Array:
    """The derivative of psi, x > 0 (Abramowitz & Stegun 6.4.12)."""
    total = sum((1 / (x + i) ** 2 for i in range(1, 6)), 1 / x**2)
    y = x + 6
    r = 1 / (y * y)
    series = r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30))))
    return 1 / y + 0.5 * r + series / y + total


def log_gamma(x: Array) -> Array:
    """log Gamma(x), x > 0, by Stirling's series (Abramowitz & Stegun 6.1.41), as `psi`."""
    is_small = x < _LEAST
    u = _product(jnp.minimum(x, _LEAST))
    product = jnp.log(u * (u + 4) * (u + 6))
    y = jnp.where(is_small, x + 6, x)
    inverse = 1 / y
    r = inverse * inverse
    series = inverse * (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680))))
    stirling = (y - 0.5) * jnp.log(y) - y + HALF_LOG_TWO_PI + series
    return stirling - jnp.where(is_small, product, 0.0)
