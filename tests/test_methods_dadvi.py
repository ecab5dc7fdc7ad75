"""DADVI against its own objective's optimum, linear response against exact covariances, its
standard errors against repeats.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_helpers import best_gaussian, logistic, quadrature, run

import vi_jax as vi
from vi_jax.methods import _linear_response

PRECISION = np.array([[2.0, 0.9, 0.0], [0.9, 1.0, -0.4], [0.0, -0.4, 0.7]])
MEAN = np.array([1.0, -2.0, 30.0])


def gaussian(u):
    return (
        -0.5
        * (u - jnp.asarray(MEAN, u.dtype))
        @ (jnp.asarray(PRECISION, u.dtype) @ (u - jnp.asarray(MEAN, u.dtype)))
    )


@pytest.mark.integration
def test_linear_response_is_exact_where_mean_field_is_too_narrow(x64):
    state, info, _ = run(
        jax.random.key(0), vi.methods.dadvi(num_draws=1000, tolerance=1e-8), gaussian, np.zeros(3)
    )
    assert info.done
    covariance = np.linalg.inv(PRECISION)
    np.testing.assert_allclose(vi.methods.linear_response(gaussian, state), covariance, rtol=0.25)
    scale = np.exp(state.log_scale)
    assert np.all(scale < 0.9 * np.sqrt(np.diag(covariance)))
    # draws that are symmetric and of unit covariance make it exact
    eye = np.eye(3)
    draws = np.sqrt(3.0) * np.concatenate([eye, -eye])
    state = state._replace(draws=jnp.asarray(draws), loc=jnp.asarray(MEAN))
    state = state._replace(log_scale=jnp.asarray(-0.5 * np.log(np.diag(PRECISION))))
    np.testing.assert_allclose(vi.methods.linear_response(gaussian, state), covariance, rtol=1e-8)
    np.testing.assert_allclose(
        vi.methods.linear_response_sd(gaussian, state), np.sqrt(np.diag(covariance)), rtol=1e-8
    )
    np.testing.assert_allclose(vi.methods.frequentist_stderr(gaussian, state), 0, atol=0.6)


@pytest.mark.slow
def test_with_many_draws_it_is_the_best_mean_field_gaussian():
    mean, covariance = best_gaussian(full_rank=False)
    state, info, _ = run(jax.random.key(0), vi.methods.dadvi(num_draws=1000), logistic, np.zeros(2))
    assert info.done
    stderr = vi.methods.frequentist_stderr(logistic, state)
    assert np.all(np.abs(state.loc - mean) < 5 * stderr)
    np.testing.assert_allclose(np.exp(state.log_scale), np.sqrt(np.diag(covariance)), rtol=0.05)
    _, exact, _ = quadrature()
    sd = vi.methods.linear_response_sd(logistic, state)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(exact)), rtol=0.08)


@pytest.mark.integration
def test_the_standard_error_is_that_of_repeats():
    method = vi.methods.dadvi(num_draws=30)

    @jax.jit
    @jax.vmap
    def repeat(key):
        state = method.init(key, logistic, jnp.zeros(2))
        keys = jax.random.split(jax.random.key(0), 30)
        state, info = jax.lax.scan(
            lambda state, key: method.step(key, logistic, state), state, keys
        )
        return state.loc, vi.methods.frequentist_stderr(logistic, state), info.done.any()

    loc, stderr, done = repeat(jax.random.split(jax.random.key(3), 300))
    assert done.all()
    np.testing.assert_allclose(loc.std(0), stderr.mean(0), rtol=0.25)


@pytest.mark.integration
def test_conjugate_gradients_agree_with_the_dense_solve(monkeypatch, x64):
    def objective(p):
        return 0.5 * p["a"] @ jnp.asarray(PRECISION) @ p["a"] + jnp.cosh(p["b"])

    params = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    dense = _linear_response.response(objective, params, jnp.eye(4))
    monkeypatch.setattr(_linear_response, "DENSE_UP_TO", 0)
    np.testing.assert_allclose(
        _linear_response.response(objective, params, jnp.eye(4)), dense, atol=1e-6
    )
    saddle = _linear_response.response(lambda p: -objective(p), params, jnp.eye(4))
    assert np.isnan(saddle).all()


@pytest.mark.integration
def test_linear_response_of_draws_is_exact_on_a_gaussian_whatever_the_guide(x64):
    covariance = np.linalg.inv(PRECISION)
    for scale, num in ((0.1, 20), (1.0, 50)):
        u = MEAN + 0.3 + scale * jax.random.normal(jax.random.key(0), (num, 3))
        np.testing.assert_allclose(
            vi.methods.linear_response_of_draws(gaussian, u), covariance, rtol=1e-6
        )
    rows = vi.methods.linear_response_of_draws(gaussian, u, jnp.array([2]))
    np.testing.assert_allclose(rows, covariance[2:], rtol=1e-6)
    saddle = vi.methods.linear_response_of_draws(lambda u: -gaussian(u), u)
    assert np.isnan(saddle).all()


@pytest.mark.slow
def test_linear_response_of_draws_is_that_of_its_own_objective(x64):
    state, info, _ = run(jax.random.key(0), vi.methods.dadvi(num_draws=1000), logistic, np.zeros(2))
    assert info.done
    u = state.loc + jnp.exp(state.log_scale) * state.draws
    own = vi.methods.linear_response(logistic, state)
    np.testing.assert_allclose(vi.methods.linear_response_of_draws(logistic, u), own, rtol=0.05)
