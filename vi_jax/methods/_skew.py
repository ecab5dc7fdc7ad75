"""Skewed variables of mean 0 and variance 1, from standard normals and back."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array

_LARGEST_SHAPE = 2.0


def skew(x: Array, shape: Array) -> Array:
    """sinh(arcsinh(x) + epsilon), standardised, of a standard normal x (Jones & Pewsey 2009, with
    delta 1).

    Args:
      x: [...].
      shape: epsilon [...]; 0 is the identity.
    """
    mean, sd = _standard(shape)
    return (x * jnp.cosh(shape) + jnp.sqrt(1 + x**2) * jnp.sinh(shape) - mean) / sd


def unskew(y: Array, shape: Array) -> tuple[Array, Array]:
    """The x of `skew`, and log dx/dy."""
    mean, sd = _standard(shape)
    raw = mean + sd * y
    x = jnp.sinh(jnp.arcsinh(raw) - shape)
    return x, jnp.log(sd) + 0.5 * (jnp.log1p(x**2) - jnp.log1p(raw**2))


@cache
def _moments() -> tuple[float, float, float]:
    """E w, E x^2 (w - E w), E (w - E w)^3 of w = sqrt(1 + x^2), x standard normal."""
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()
    w = np.sqrt(1 + x**2)
    mean = float(weight @ w)
    return mean, float(weight @ (x**2 * (w - mean))), float(weight @ (w - mean) ** 3)


def _standard(shape: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of sinh(arcsinh(x) + epsilon)."""
    mean_w, _, _ = _moments()
    up = jnp.sinh(shape)
    return mean_w * up, jnp.sqrt(jnp.cosh(shape) ** 2 + (2 - mean_w**2) * up**2)


def shape_of_skewness(skewness: Array) -> Array:
    """epsilon that gives a skewness, the nearest where none does."""
    mean_w, k1, k3 = _moments()
    shapes = np.linspace(-_LARGEST_SHAPE, _LARGEST_SHAPE, 401)
    up = np.sinh(shapes)
    variance = np.cosh(shapes) ** 2 + (2 - mean_w**2) * up**2
    third = 3 * np.cosh(shapes) ** 2 * up * k1 + up**3 * k3
    table = third / variance**1.5
    return jnp.interp(skewness, jnp.asarray(table), jnp.asarray(shapes)).astype(skewness.dtype)
