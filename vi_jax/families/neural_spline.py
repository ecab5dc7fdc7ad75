"""The coupling flow of rational-quadratic splines."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._networks import apply_network, check_hidden, init_network
from vi_jax.types import Array, Family, Params

_SMALLEST = 1e-3  # of a bin's width and height (as a part of all) and of a slope
_SHIFT = float(np.log(np.expm1(1.0 - _SMALLEST)))  # softplus(_SHIFT) + _SMALLEST = 1


def neural_spline(
    example: Any,
    *,
    num_layers: int = 4,
    num_bins: int = 8,
    half_width: float = 5.0,
    hidden: Sequence[int] = (32, 32),
) -> Family:
    """y_2 = g(x_2) with g a monotone rational-quadratic spline whose knots a network of x_1 puts
    out, y_1 = x_1 (Durkan et al. 2019, eq. 4 to 8); the identity outside [-half_width, half_width].

    Each layer then turns the order of the entries round. With D = 1 the knots are free.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L; two move every entry.
      num_bins: B of the spline.
      half_width: of the interval that the spline bends.
      hidden: widths of the network.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers"}; an encoder puts out the base,
      the layers are shared.

    Raises:
      ValueError: there are no latents, some are not real, or a number is out of range.
    """
    check_hidden("neural_spline", hidden)
    if num_bins < 1 or num_bins * _SMALLEST >= 1.0 or not half_width > 0.0:
        raise ValueError(
            f"neural_spline expects 1 to 999 bins on a positive half_width; got {num_bins} on "
            f"{half_width}."
        )
    num_outputs = 3 * num_bins - 1

    def init_layer(key: Array, size: int) -> Params:
        return init_network(key, (size // 2, *hidden, (size - size // 2) * num_outputs))

    def knots(params: Params, first: Array) -> Array:
        return apply_network(params, first).reshape(-1, num_outputs)

    def forward(params: Params, x: Array) -> tuple[Array, Array]:
        first = x[: x.size // 2]
        second = x[x.size // 2 :]
        moved, log_slope = jax.vmap(lambda raw, x: spline(raw, x, half_width))(
            knots(params, first), second
        )
        return jnp.concatenate([first, moved])[::-1], log_slope.sum()

    def inverse(params: Params, y: Array) -> tuple[Array, Array]:
        y = y[::-1]
        first = y[: y.size // 2]
        second = y[y.size // 2 :]
        back, log_slope = jax.vmap(lambda raw, y: spline_inverse(raw, y, half_width))(
            knots(params, first), second
        )
        return jnp.concatenate([first, back]), log_slope.sum()

    layer = Bijection(forward, inverse)
    return make_family(
        "neural_spline",
        example,
        init_layer,
        lambda size: layer,
        num_layers=num_layers,
        shared=("layers",),
        options={
            "num_bins": int(num_bins),
            "half_width": float(half_width),
            "hidden": tuple(int(width) for width in hidden),
        },
    )


def _knots(raw: Array, half_width: float) -> tuple[Array, Array, Array]:
    """Places x and heights y [B + 1] of the knots and slopes [B + 1] there, from raw [3 B - 1];
    zeros are the identity.
    """
    num_bins = (raw.shape[0] + 1) // 3

    def ends(raw: Array) -> Array:
        parts = _SMALLEST + (1.0 - num_bins * _SMALLEST) * jax.nn.softmax(raw)
        inner = half_width * (2.0 * jnp.cumsum(parts)[:-1] - 1.0)
        return jnp.concatenate(
            [jnp.full(1, -half_width, raw.dtype), inner, jnp.full(1, half_width, raw.dtype)]
        )

    ones = jnp.ones(1, raw.dtype)
    slopes = jnp.concatenate(
        [ones, _SMALLEST + jax.nn.softplus(raw[2 * num_bins :] + _SHIFT), ones]
    )
    return ends(raw[:num_bins]), ends(raw[num_bins : 2 * num_bins]), slopes


def _bin(knots: tuple[Array, Array, Array], position: Array, axis: int) -> tuple[Array, ...]:
    """x, y, width, height and both slopes of the bin that holds `position` on that axis."""
    x, y, slopes = knots
    b = jnp.sum(position >= knots[axis][1:-1])
    return x[b], y[b], x[b + 1] - x[b], y[b + 1] - y[b], slopes[b], slopes[b + 1]


def _log_slope(s: Array, left: Array, right: Array, t: Array) -> Array:
    """log of eq. 5."""
    above = right * t**2 + 2.0 * s * t * (1.0 - t) + left * (1.0 - t) ** 2
    return (
        2.0 * jnp.log(s)
        + jnp.log(above)
        - 2.0 * jnp.log(s + (left + right - 2.0 * s) * t * (1.0 - t))
    )


def spline(raw: Array, x: Array, half_width: float) -> tuple[Array, Array]:
    """g(x) and log g'(x) of a scalar x (eq. 4 and 5)."""
    inside = jnp.abs(x) < half_width
    kept = jnp.where(inside, x, 0.0)
    x0, y0, width, height, left, right = _bin(_knots(raw, half_width), kept, 0)
    t = (kept - x0) / width
    s = height / width
    y = y0 + height * (s * t**2 + left * t * (1.0 - t)) / (
        s + (left + right - 2.0 * s) * t * (1.0 - t)
    )
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(s, left, right, t), 0.0)


def spline_inverse(raw: Array, y: Array, half_width: float) -> tuple[Array, Array]:
    """The x of g(x) = y, and log g'(x), of a scalar y (eq. 6 to 8)."""
    inside = jnp.abs(y) < half_width
    kept = jnp.where(inside, y, 0.0)
    x0, y0, width, height, left, right = _bin(_knots(raw, half_width), kept, 1)
    s = height / width
    rise = kept - y0
    bend = rise * (left + right - 2.0 * s)
    a = height * (s - left) + bend
    b = height * left - bend
    c = -s * rise
    t = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
    return jnp.where(inside, x0 + t * width, y), jnp.where(
        inside, _log_slope(s, left, right, t), 0.0
    )
