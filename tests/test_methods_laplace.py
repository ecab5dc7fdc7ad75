"""Laplace's approximation against scipy's mode and Hessian, and where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_helpers import LOGISTIC, logistic, quadrature
from scipy.optimize import minimize

import vi_jax as vi


@pytest.mark.integration
def test_mode_and_covariance_are_those_of_scipy(x64):
    def loss(u):
        return float(-logistic(jnp.asarray(u)))

    best = minimize(
        loss, np.zeros(2), jac=lambda u: np.asarray(-jax.grad(logistic)(jnp.asarray(u))), tol=1e-12
    )
    hessian = np.asarray(jax.hessian(logistic)(jnp.asarray(best.x)))
    result = vi.fit(jax.random.key(0), LOGISTIC, vi.methods.laplace())
    np.testing.assert_allclose(result.guide.loc, best.x, atol=1e-6)
    np.testing.assert_allclose(result.guide.covariance_matrix, np.linalg.inv(-hessian), rtol=1e-3)
    assert result.converged
    assert result.evaluations < 40
    _, _, evidence = quadrature()
    assert abs(result.history["value"][-1] - evidence) < 0.1  # an O(1 / N) error


@pytest.mark.integration
def test_where_the_curvature_is_no_maximum_s_it_says_so():
    def ridge(u):  # no maximum: flat along u[0] once u[1] is at its own
        return -0.5 * u[1] ** 2 + 1e-12 * u[0]

    method = vi.methods.laplace(num_steps=30)

    @jax.jit
    def run(state):
        return jax.lax.scan(
            lambda s, key: method.step(key, ridge, s),
            state,
            jax.random.split(jax.random.key(0), 30),
        )

    state, info = run(method.init(jax.random.key(1), ridge, jnp.array([0.3, 1.0])))
    assert not info.done.any()
    assert np.isnan(info.value[-1])
    assert np.isnan(jnp.diagonal(state.root)).all()
    with pytest.raises(FloatingPointError, match="not finite"):
        vi.fit(jax.random.key(0), vi.targets.from_log_density(ridge, 2), method)
