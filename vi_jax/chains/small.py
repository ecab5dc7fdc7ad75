"""Products and solutions of small matrices, in plain arithmetic.

On a CPU a batch of small matrices costs a call of BLAS or LAPACK for each, which takes longer than
its arithmetic; sums of products and loops over pivots run through all of the batch at once, and
compile sooner. XLA computes again, for each element of the next product, what it fuses into it, but
never the result of a loop: hence the loop of two products in `congruence`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.types import Array

MAX_SIZE = 16  # of a matrix; larger ones are BLAS's and LAPACK's


class Solved(NamedTuple):
    """The solution of a X = b."""

    x: Array  # a^-1 b, [D, M]
    log_det: Array  # log |det a|, []


def product(a: Array, b: Array) -> Array:
    """a b, [..., L, N], of matrices [..., L, M] and [..., M, N]."""
    if max(a.shape[-1], b.shape[-1]) > MAX_SIZE:
        return a @ b
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], -2)


def applied(a: Array, x: Array) -> Array:
    """a x, [..., L], of matrices [..., L, M] and vectors [..., M]."""
    return jnp.sum(a * x[..., None, :], -1)


def symmetric(matrix: Array) -> Array:
    """The symmetric part of matrices [..., D, D]."""
    return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))


def congruence(a: Array, x: Array) -> Array:
    """a x a' of matrices [D, D], x symmetric."""
    if a.shape[-1] > MAX_SIZE:
        return symmetric(a @ x @ a.T)
    return symmetric(jax.lax.fori_loop(0, 2, lambda _, y: product(a, y).T, x))


def solve(a: Array, b: Array) -> Solved:
    """a^-1 b and log |det a| of a [D, D] and b [D, M], by Gauss-Jordan elimination with partial
    pivoting (Golub & Van Loan 2013, sec. 3.4).
    """
    size = a.shape[-1]
    if size > MAX_SIZE:
        return Solved(linalg.solve(a, b), linalg.slogdet(a)[1])
    rows = jnp.arange(size)

    def eliminate(k: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        (both, log_det) = found
        column = both[:, k]
        pivot = jnp.argmax(jnp.where(rows >= k, jnp.abs(column), -1.0))
        replaced = both[k]
        chosen = both[pivot]
        scaled = chosen / chosen[k]
        is_pivot = rows == pivot
        others = jnp.where(is_pivot[:, None], replaced, both)
        factors = jnp.where(is_pivot, replaced[k], column)
        both = jnp.where((rows == k)[:, None], scaled, others - factors[:, None] * scaled)
        return both, log_det + jnp.log(jnp.abs(chosen[k]))

    start = (jnp.concatenate([a, b], -1), jnp.zeros((), a.dtype))
    (both, log_det) = jax.lax.fori_loop(0, size, eliminate, start)
    return Solved(both[:, size:], log_det)
