"""Small matrices in plain arithmetic, against NumPy's LAPACK and JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_jax.chains import small

SIZES = (1, 2, 6, small.MAX_SIZE, small.MAX_SIZE + 1)


def matrices(size, num=3):
    """Not symmetric, with entries on the diagonal that are too small to divide by."""
    rng = np.random.default_rng(size)
    a = rng.normal(size=(num, size, size))
    if size > 1:
        a[:, 0, 0] = 0.0
    return a, rng.normal(size=(num, size, size))


@pytest.mark.parametrize("size", SIZES)
def test_solutions_and_determinants_are_those_of_lapack(size):
    (a, b) = matrices(size)
    with jax.enable_x64():
        found = jax.jit(jax.vmap(small.solve))(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found.x, np.linalg.solve(a, b), rtol=1e-9)
    np.testing.assert_allclose(found.log_det, np.linalg.slogdet(a)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_products_are_those_of_numpy(size):
    (a, b) = matrices(size)
    x = b + np.swapaxes(b, -1, -2)
    with jax.enable_x64():
        np.testing.assert_allclose(small.product(a, b), a @ b, rtol=1e-12, atol=1e-12)
        applied = small.applied(jnp.asarray(a), jnp.asarray(b[..., 0]))
        np.testing.assert_allclose(applied, (a @ b)[..., 0], rtol=1e-12, atol=1e-12)
        both = jax.vmap(small.congruence)(jnp.asarray(a), jnp.asarray(x))
    np.testing.assert_allclose(both, a @ x @ np.swapaxes(a, -1, -2), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(both, np.swapaxes(both, -1, -2))


def test_gradients_are_those_of_lapack():
    """Through the choice of pivots."""
    (a, b) = (each[0] for each in matrices(4))
    weights = np.random.default_rng(0).normal(size=(4, 4))

    def value(solve, a, b):
        (x, log_det) = solve(a, b)
        return jnp.sum(weights * x) + log_det

    def by_lapack(a, b):
        return jnp.linalg.solve(a, b), jnp.linalg.slogdet(a)[1]

    with jax.enable_x64():
        own = jax.grad(lambda *given: value(small.solve, *given), (0, 1))(a, b)
        other = jax.grad(lambda *given: value(by_lapack, *given), (0, 1))(a, b)
    for each, want in zip(own, other, strict=True):
        np.testing.assert_allclose(each, want, rtol=1e-9, atol=1e-10)


def test_a_large_scale_leaves_small_solutions_right():
    """I + P J of a wide prior and a precise site, in float32."""
    cov = np.diag([1e8, 1.0, 1e-4]).astype(np.float32)
    root = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    J = 100.0 * root @ root.T
    found = small.solve(jnp.eye(3) + cov @ J, cov)
    want = np.linalg.inv(np.linalg.inv(cov.astype(np.float64)) + J.astype(np.float64))
    np.testing.assert_allclose(found.x, want, rtol=2e-4, atol=1e-6)
