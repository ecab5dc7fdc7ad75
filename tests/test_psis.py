"""Pareto-smoothed importance sampling against ArviZ, and against tails that are known."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vi_jax.diagnostics import k_threshold, psis
from vi_jax.diagnostics.psis import (
    effective_draws,
    fit_pareto,
    k_hat_of_largest,
    pareto_quantile,
    tail_size,
)


@pytest.mark.cases(rest=None, slow=["1000-1.5", "1000-3.0", "1000-30.0"])
@pytest.mark.integration
@pytest.mark.parametrize("freedom", [1.5, 3.0, 30.0])
@pytest.mark.parametrize("num_draws", [100, 1000, 4000])
def test_weights_and_k_hat_are_those_of_arviz(num_draws, freedom):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    if not hasattr(arviz, "psislw"):
        pytest.skip("this ArviZ has no psislw")
    log_w = np.random.default_rng(0).standard_t(freedom, num_draws)
    theirs, k_theirs = arviz.psislw(log_w.copy(), reff=1.0)
    with jax.enable_x64(True):
        ours = psis(jnp.asarray(log_w))
        np.testing.assert_allclose(ours.k_hat, k_theirs, atol=1e-6)
        np.testing.assert_allclose(ours.log_weights, theirs, atol=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("k", [0.1, 0.5, 0.9])
def test_the_shape_of_a_pareto_tail_is_found(k):
    with jax.enable_x64(True):
        p = (jnp.arange(4000) + 0.5) / 4000
        k_hat, sigma = fit_pareto(pareto_quantile(p, jnp.asarray(k), jnp.asarray(2.0)))
        np.testing.assert_allclose(k_hat, k, atol=0.01)
        np.testing.assert_allclose(sigma, 2.0, rtol=0.02)


@pytest.mark.integration
def test_equal_weights_have_no_tail():
    smoothed = psis(jnp.full(400, -3.0))
    assert float(smoothed.k_hat) == -jnp.inf
    np.testing.assert_allclose(effective_draws(smoothed.log_weights), 400, rtol=1e-4)


@pytest.mark.integration
def test_weights_of_zero_and_few_draws():
    log_w = jnp.where(jnp.arange(1000) < 500, -jnp.inf, jnp.linspace(-1, 1, 1000))
    smoothed = psis(log_w)
    assert np.isfinite(smoothed.k_hat)
    np.testing.assert_allclose(jnp.exp(smoothed.log_weights).sum(), 1, rtol=1e-5)
    assert float(jnp.exp(smoothed.log_weights[:500]).sum()) == 0.0
    with pytest.raises(ValueError, match="at least 25"):
        psis(jnp.zeros(24))


@pytest.mark.integration
def test_a_guide_that_is_too_narrow_is_found_out_and_one_too_wide_is_not():
    def k_hat(scale):  # of N(0, scale^2) as a proposal for N(0, 1), 5 dimensions
        u = scale * jax.random.normal(jax.random.key(1), (4000, 5))
        return float(psis((-0.5 * u**2 + 0.5 * (u / scale) ** 2).sum(1)).k_hat)

    assert k_hat(0.5) > k_threshold(4000)
    assert k_hat(1.2) < 0.5
    assert k_threshold(4000) == 0.7
    np.testing.assert_allclose(k_threshold(100), 0.5)


@pytest.mark.integration
def test_k_hat_is_never_nan():
    # rounding of log p - log q: most of the tail ties
    noise = 1e-4 * jnp.round(3 * jax.random.normal(jax.random.key(0), (4000,)))
    assert float(psis(noise).k_hat) == -jnp.inf
    # one weight that is not 0
    assert float(psis(jnp.full(1000, -jnp.inf).at[3].set(0.0)).k_hat) == jnp.inf


@pytest.mark.integration
def test_k_hat_needs_the_largest_weights_alone():
    for seed, scale in ((0, 1.0), (1, 4.0), (2, 0.0)):
        log_w = jnp.asarray(scale * np.random.default_rng(seed).standard_t(3, 400))
        largest = jnp.sort(log_w)[-tail_size(400) - 1 :]
        np.testing.assert_array_equal(k_hat_of_largest(largest), psis(log_w).k_hat)
