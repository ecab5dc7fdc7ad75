"""Rows times a matrix is `x @ w` under every transformation, with one product for the gradient in
the matrix.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal, tree_allclose

from vi_jax.models._product import product

W = jnp.asarray(normal(0, 4, 3), jnp.float32)
X = jnp.asarray(normal(1, 5, 6, 4), jnp.float32)


def value(multiply):
    return lambda w, x: (jnp.tanh(multiply(x, w)) ** 2).sum()


def over(f, *, matrix=None):
    return jax.vmap(f, (matrix, 0))


TRANSFORMS = {
    "value": lambda f: f(W, X[0, 0]),
    "rows": lambda f: f(W, X),
    "gradient": lambda f: jax.grad(f, (0, 1))(W, X[0, 0]),
    "gradient of rows": lambda f: jax.grad(f, (0, 1))(W, X),
    "gradient of two vmaps": lambda f: jax.grad(lambda w, x: over(over(f))(w, x).sum(), (0, 1))(
        W, X
    ),
    "vmap of a gradient": lambda f: jax.jit(over(jax.grad(f, (0, 1))))(W, X[0]),
    "vmap over matrices": lambda f: over(jax.grad(f, (0, 1)), matrix=0)(
        jnp.stack([W, 2 * W]), X[:2]
    ),
    "vmap over matrices alone": lambda f: jax.vmap(f, (2, None))(jnp.stack([W, 2 * W], 2), X[0]),
    "vmap over a last axis": lambda f: jax.vmap(f, (None, 2))(W, X.transpose(0, 2, 1)),
    "forward": lambda f: jax.jvp(f, (W, X[0]), (W, X[0])),
    "hessian": lambda f: jax.vmap(jax.hessian(f, 1), (None, 0))(W, X[0]),
    "scan and checkpoint": lambda f: jax.grad(
        lambda w: jax.lax.map(jax.checkpoint(lambda x: f(w, x)), X[0], batch_size=4).sum()
    )(W),
}


@pytest.mark.cases(rest=None, integration=["hessian", "scan and checkpoint"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_it_is_matmul_under(name):
    ours, theirs = (TRANSFORMS[name](value(multiply)) for multiply in (product, jnp.matmul))
    assert tree_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_gradient_in_the_matrix_contracts_one_axis():
    gradient = jax.jit(jax.grad(lambda w: over(over(value(product)))(w, X).sum()))
    contracted = re.findall(r"contracting_dims = \[([\d, ]*)\]", gradient.lower(W).as_text())
    assert len(contracted) == 2
    assert all("," not in axes for axes in contracted)


def test_factors_are_rounded_and_sums_are_not():
    """1,025 products of 1 + 2^-6 and 1: each factor is one of bfloat16, the sum is not; 1 + 2^-12
    is rounded to 1.
    """
    ones = jnp.ones((1025, 1))
    options = dict(factors=jnp.bfloat16, out=jnp.float32)
    assert product(jnp.full(1025, 1 + 2.0**-6), ones, **options).item() == 1025 * (1 + 2.0**-6)
    assert product(jnp.full(1025, 1 + 2.0**-12), ones, **options).item() == 1025
    assert (
        product(jnp.ones(2), jnp.ones((2, 1)), factors=jnp.bfloat16, out=jnp.bfloat16).dtype
        == jnp.bfloat16
    )
    gradient = jax.grad(lambda w: jax.vmap(lambda x: product(x, w, **options).sum())(ones).sum())(
        jnp.ones((1, 1))
    )
    np.testing.assert_array_equal(gradient, 1025.0)
    assert gradient.dtype == jnp.float32


def test_float64(x64):
    w = np.asarray(W, np.float64)
    x = np.asarray(X, np.float64)
    ours = jax.grad(value(product), (0, 1))(jnp.asarray(w), jnp.asarray(x))
    assert all(leaf.dtype == jnp.float64 for leaf in ours)
    assert tree_allclose(
        ours, jax.grad(value(jnp.matmul), (0, 1))(jnp.asarray(w), jnp.asarray(x)), rtol=1e-12
    )
