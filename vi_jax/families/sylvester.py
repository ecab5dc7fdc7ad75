"""The Sylvester flow with an orthonormal basis of Householder reflections."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._solve import attach_derivatives, find_root
from vi_jax.types import Array, Family, Params, freeze

_MAX_DIAGONAL = 0.999  # of a diagonal, so that 1 + tanh' r r~ stays away from 0 in float32


def sylvester(
    example: Any,
    *,
    num_layers: int = 4,
    num_directions: int | None = None,
    num_reflections: int | None = None,
) -> Family:
    """f(z) = z + Q R tanh(R~ Q'z + b), log |det| = sum_m log(1 + tanh'(.)_m r_mm r~_mm), Q [D, M]
    orthonormal, R and R~ upper triangular [M, M] (van den Berg et al. 2018, sec. 3, with Q of
    Householder reflections).

    Invertible because |r_mm|, |r~_mm| < 1 (their theorem 2). The inverse solves for Q'z from its
    last entry to its first, a scalar root each.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L.
      num_directions: M, at most D; min(D, 4) if not given.
      num_reflections: H, reflections whose product has Q as its first columns; M if not given.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers": {"reflections": [L, H, D],
      "diagonals": [L, 2, M], "uppers": [L, 2, M (M - 1) / 2], "bias": [L, M]}} (of R and R~,
      diagonals before tanh), all put out by an encoder.

    Raises:
      ValueError: there are no latents, some are not real, or a number is out of range.
    """

    def directions(size: int) -> int:
        number = min(size, 4) if num_directions is None else num_directions
        if not 1 <= number <= size:
            raise ValueError(
                f"sylvester expects num_directions from 1 to the {size} latents; got {number}."
            )
        return number

    def init_layer(key: Array, size: int) -> Params:
        key_reflections, key_diagonals, key_uppers = jax.random.split(key, 3)
        number = directions(size)
        reflections = number if num_reflections is None else num_reflections
        return {
            "reflections": jax.random.normal(key_reflections, (reflections, size)),
            "diagonals": 0.1 * jax.random.normal(key_diagonals, (2, number)),
            "uppers": 0.1 * jax.random.normal(key_uppers, (2, number * (number - 1) // 2)),
            "bias": jnp.zeros(number),
        }

    def make_layer(size: int) -> Bijection:
        directions(size)
        return LAYER

    if num_reflections is not None and num_reflections < 1:
        raise ValueError(f"sylvester expects num_reflections of at least 1; got {num_reflections}.")
    return make_family(
        "sylvester", example, init_layer, make_layer, num_layers=num_layers, shared=()
    )


def _matrices(params: Params) -> tuple[Array, Array, Array]:
    """Q [D, M], R and R~ [M, M]."""
    number = params["bias"].shape[0]
    columns = jnp.eye(params["reflections"].shape[1], number, dtype=params["bias"].dtype)

    def reflect(columns: Array, v: Array) -> tuple[Array, None]:
        return columns - 2.0 * jnp.outer(v, v @ columns) / (v @ v + jnp.finfo(v.dtype).tiny), None

    columns, _ = jax.lax.scan(reflect, columns, params["reflections"])
    rows, cols = np.triu_indices(number, 1)
    upper = [
        jnp.diag(_MAX_DIAGONAL * jnp.tanh(diagonal)).at[rows, cols].set(strict)
        for diagonal, strict in zip(params["diagonals"], params["uppers"], strict=True)
    ]
    return columns, upper[0], upper[1]


def _push(q: Array, r: Array, r_tilde: Array, bias: Array, along: Array) -> tuple[Array, Array]:
    """Q R tanh(R~ a + b) for a = Q'z, and log |det|."""
    height = jnp.tanh(r_tilde @ along + bias)
    return q @ (r @ height), jnp.sum(
        jnp.log1p((1.0 - height**2) * jnp.diagonal(r) * jnp.diagonal(r_tilde))
    )


def _forward(params: Params, x: Array) -> tuple[Array, Array]:
    q, r, r_tilde = _matrices(params)
    shift, log_det = _push(q, r, r_tilde, params["bias"], q.T @ x)
    return x + shift, log_det


def _scalar(a: Array, args: tuple[Array, Array, Array, Array]) -> Array:
    r, r_tilde, inside, target = args
    return a + r * jnp.tanh(r_tilde * a + inside) - target


def _solve(args: tuple[Array, Array, Array, Array]) -> Array:
    """The a [M] of a + R tanh(R~ a + b) = target, by back substitution."""
    r, r_tilde, bias, target = args

    def entry(carry: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], None]:
        a, height = carry  # zeros where not yet solved
        inside = r_tilde[m] @ a + bias[m]
        left = target[m] - r[m] @ height
        root = find_root(
            _scalar,
            (r[m, m], r_tilde[m, m], inside, left),
            left - jnp.abs(r[m, m]),
            left + jnp.abs(r[m, m]),
        )
        return (a.at[m].set(root), height.at[m].set(jnp.tanh(r_tilde[m, m] * root + inside))), None

    zeros = jnp.zeros_like(target)
    (a, _), _ = jax.lax.scan(entry, (zeros, zeros), jnp.arange(target.shape[0]), reverse=True)
    return a


def _newton(a: Array, args: tuple[Array, Array, Array, Array]) -> Array:
    r, r_tilde, bias, target = args
    height = jnp.tanh(r_tilde @ a + bias)
    # upper triangular
    jacobian = jnp.eye(a.shape[0], dtype=a.dtype) + (r * (1.0 - height**2)[None, :]) @ r_tilde
    return a - linalg.solve_triangular(jacobian, a + r @ height - target)


def _inverse(params: Params, y: Array) -> tuple[Array, Array]:
    q, r, r_tilde = _matrices(params)
    args = (r, r_tilde, params["bias"], q.T @ y)  # Q'Q = I
    along = attach_derivatives(_newton, args, _solve(freeze(args)))
    shift, log_det = _push(q, r, r_tilde, params["bias"], along)
    return y - shift, log_det


LAYER = Bijection(_forward, _inverse)
