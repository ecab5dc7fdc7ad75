"""Special functions in forms that keep their digits: never a small difference of large numbers."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, i0e, i1e

Array = jax.Array

_HALF_LOG_TWO_PI = 0.9189385332046727
# of x^-1, x^-3, ...
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
_STIRLING_FROM = 8.0  # the first term left out is below 1e-16 from here on
_SHIFT = 8
_EXCESS = tuple((-1) ** k / k for k in range(2, 15))  # of step^2, step^3, ...
_BESSEL_FROM = 25.0  # likewise below 1e-13 of the whole


def log_ratio(x: Array, y: Array) -> Array:
    """log(x / y) of positive numbers, with as many digits near x = y as x - y has."""
    near = jnp.abs(x - y) < 0.5 * y
    step = jnp.where(near, (x - y) / y, 0.0)
    return jnp.where(near, jnp.log1p(step), jnp.log(x) - jnp.log(y))


def excess(x: Array, y: Array) -> Array:
    """x / y - 1 - log(x / y), never negative: step^2 / 2 - step^3 / 3 + ... where step = x / y - 1
    is small.
    """
    step = (x - y) / y
    near = jnp.abs(step) < 0.05
    small = jnp.where(near, step, 0.0)
    return jnp.where(near, small**2 * _horner(_EXCESS, small), step - log_ratio(x, y))


def stirling_remainder(x: Array) -> Array:
    """R(x) = log Gamma(x) - [(x - 1/2) log x - x + 1/2 log 2 pi], about 1 / (12 x) for large x."""
    large = x > _STIRLING_FROM
    y = jnp.where(large, x, _STIRLING_FROM)
    low = jnp.where(large, _STIRLING_FROM, x)
    direct = gammaln(low) - (low - 0.5) * jnp.log(low) + low - _HALF_LOG_TWO_PI
    return jnp.where(large, _horner(_STIRLING, y**-2) / y, direct)


def count_log_factor(x: Array) -> Array:
    """1/2 log(2 pi x) + R(x) = log x! - x log x + x for counts x > 0: what a density of counts has
    beside its deviance (Loader 2000, eq. 4).
    """
    return _HALF_LOG_TWO_PI + 0.5 * jnp.log(x) + stirling_remainder(x)


def gammaln_divergence(x: Array, y: Array) -> Array:
    """log Gamma(x) - log Gamma(y) - (x - y) digamma(y) for x, y > 0, never negative, with all its
    digits.

    log Gamma is -sum_n log(x + n) but for a line, so its Bregman divergence is the sum of theirs:
    sum_n `excess`(x + n, y + n). Eight terms, and the rest by Stirling's series at x + 8 and y + 8,
    with no difference of log Gamma functions anywhere.
    """
    n = jnp.arange(_SHIFT, dtype=jnp.result_type(x)).reshape(*[1] * jnp.ndim(x), _SHIFT)
    near = excess(jnp.expand_dims(x, -1) + n, jnp.expand_dims(y, -1) + n).sum(-1)
    high = x + _SHIFT
    base = y + _SHIFT
    return near + base_divergence(high, base) + _large_gap(high, base)


def gammaln_gap(x: Array, y: Array) -> Array:
    """`gammaln_divergence` less its leading part `base_divergence`: right at x = 1e8 too, where log
    Gamma has no digits left.
    """
    large = jnp.minimum(x, y) > _STIRLING_FROM
    high, base = (jnp.where(large, z, _STIRLING_FROM) for z in (x, y))
    return jnp.where(
        large, _large_gap(high, base), gammaln_divergence(x, y) - base_divergence(x, y)
    )


def base_divergence(x: Array, y: Array) -> Array:
    """x log(x / y) - (x - y), the divergence of x log x."""
    return x * log_ratio(x, y) - (x - y)


def _large_gap(x: Array, y: Array) -> Array:
    """The divergences of -1/2 log x, and of Stirling's remainder R, whose slope is R'(x) = -1 / (12
    x^2) + ...
    """
    slopes = tuple(-(2 * k + 1) * c for k, c in enumerate(_STIRLING))
    slope = _horner(slopes, y**-2) / y**2
    return 0.5 * excess(x, y) + (
        _horner(_STIRLING, x**-2) / x - _horner(_STIRLING, y**-2) / y - (x - y) * slope
    )


def log_i0e(x: Array) -> Array:
    """log(e^-x I_0(x))."""
    return jnp.log(i0e(x))


def bessel_ratio_complement(x: Array) -> Array:
    """1 - I_1(x) / I_0(x), about 1 / (2 x) for large x, where the two Bessel functions agree in all
    their digits.

    The series sum_n c_n x^-n has c_1 = 1/2 and 2 c_n = (n - 2) c_(n-1) + sum_i c_i c_(n-i), by the
    equation A' = 1 - A / x - A^2.
    """
    large = x > _BESSEL_FROM
    y = jnp.where(large, x, _BESSEL_FROM)
    low = jnp.where(large, _BESSEL_FROM, x)
    return jnp.where(large, _horner(_BESSEL, 1.0 / y) / y, (i0e(low) - i1e(low)) / i0e(low))


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    """c_0 + c_1 x + c_2 x^2 + ..."""
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def _bessel_coefficients(terms: int) -> tuple[float, ...]:
    c = [0.5]
    for n in range(2, terms + 1):
        c.append(0.5 * ((n - 2) * c[-1] + sum(c[i - 1] * c[n - i - 1] for i in range(1, n))))
    return tuple(c)


_BESSEL = _bessel_coefficients(16)
