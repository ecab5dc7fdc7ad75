"""Control variates: a mean less its regression on quantities of known mean 0."""

from typing import NamedTuple

import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.types import Array


class Controlled(NamedTuple):
    """A mean with control variates, its standard error, and how much variance they took away."""

    value: Array
    stderr: Array
    variance_ratio: Array  # with controls / without; below 1 where they help


def controlled_mean(values: Array, controls: Array) -> Controlled:
    """The mean of `values` [K] less its regression on `controls` [K, M] whose mean is 0,
    coefficients learned from the other half of the samples, so that the mean stays right (Owen
    2013, sec. 8.9, cross-fitted).

    Args:
      values: one number a sample, e.g. a coordinate of a gradient; vmap over coordinates.
      controls: numbers of mean 0 on the same samples, e.g. the guide's score.

    Raises:
      ValueError: fewer than 4 (M + 1) samples, or shapes that do not match.
    """
    num = values.shape[0]
    if controls.ndim != 2 or controls.shape[0] != num or num < 4 * (controls.shape[1] + 1):
        raise ValueError(
            "controlled_mean expects values [K], controls [K, M], K >= 4 (M + 1); got "
            f"{values.shape}, {controls.shape}."
        )
    first = jnp.arange(num) < num // 2

    def residual(fitted_on: Array, used_on: Array) -> Array:
        weight = fitted_on.astype(values.dtype)[:, None]
        centred = controls - (weight * controls).sum(0, keepdims=True) / weight.sum()
        gap = values - (weight[:, 0] * values).sum() / weight.sum()
        scale = (
            jnp.finfo(values.dtype).eps * (weight * centred**2).sum() + jnp.finfo(values.dtype).tiny
        )
        gram = (weight * centred).T @ centred + scale * jnp.eye(
            controls.shape[1], dtype=values.dtype
        )
        coefficients = linalg.solve(gram, (weight * centred).T @ gap)
        return jnp.where(used_on, values - controls @ coefficients, 0.0)

    left = residual(first, ~first) + residual(~first, first)
    return Controlled(left.mean(), left.std(ddof=1) / num**0.5, left.var() / values.var())
