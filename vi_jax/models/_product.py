"""Rows times a matrix, whose gradient in the matrix is one product whatever the number of `vmap`s
around it.

The transpose of a `dot_general` under two `vmap`s, over examples and over draws, contracts two
axes, and XLA copies the factors into another order to make one axis of them: a fifteenth of a step
of an importance-weighted VAE on a CPU. This primitive keeps its rows in front, through any number
of `vmap`s, and flattens them. The factors of each product, forwards and backwards, may be rounded
to a narrower type; sums are then in the type of the outcome, and the gradient in the matrix is in
that of the matrix.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vi_jax.types import Array

product_p = Primitive("rows_times_matrix")


def product(x: Array, w: Array, *, factors: Any = None, out: Any = None) -> Array:
    """x @ w for x [..., n] and w [n, m], [..., m]: of factors rounded to `factors`, in the type
    `out`; those of x if not given.
    """
    return product_p.bind(
        x, w, factors=jnp.dtype(factors or x.dtype), out=jnp.dtype(out or x.dtype)
    )


def _plain(x: Array, w: Array, *, factors: Any, out: Any) -> Array:
    rows = x.reshape(-1, x.shape[-1]).astype(factors)
    w = w.astype(factors)
    return jnp.matmul(rows, w, preferred_element_type=out).reshape(*x.shape[:-1], w.shape[1])


def _shape(x: Any, w: Any, *, factors: Any, out: Any) -> Any:
    del factors
    return jax.core.ShapedArray((*x.shape[:-1], w.shape[1]), out)


def _gradient_in_x(cotangent: Array, x: Any, w: Array, *, factors: Any, out: Any) -> Array:
    del out
    return product_p.bind(cotangent, w.T, factors=factors, out=x.aval.dtype)


def _gradient_in_w(cotangent: Array, x: Array, w: Any, *, factors: Any, out: Any) -> Array:
    del out
    columns, rows = (a.reshape(-1, a.shape[-1]).astype(factors) for a in (x, cotangent))
    return jnp.matmul(columns.T, rows, preferred_element_type=w.aval.dtype)


def _batch(args: Any, axes: Any, *, factors: Any, out: Any) -> tuple[Array, int]:
    (x, w) = args
    (axis_x, axis_w) = axes
    if axis_w is None:
        return product_p.bind(jnp.moveaxis(x, axis_x, 0), w, factors=factors, out=out), 0
    return jax.vmap(lambda x, w: _plain(x, w, factors=factors, out=out), axes)(x, w), 0


product_p.def_impl(jax.jit(_plain, static_argnames=("factors", "out")))
product_p.def_abstract_eval(_shape)
mlir.register_lowering(product_p, mlir.lower_fun(_plain, multiple_results=False))
ad.defbilinear(product_p, _gradient_in_x, _gradient_in_w)
batching.primitive_batchers[product_p] = _batch
