"""Simulation-based calibration of guides whose errors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from vi_jax.diagnostics.calibration import brownian_supremum, calibrate, kolmogorov


def simulate(key):  # z ~ N(0, I), x | z ~ N(z, 1): the posterior is N(x / 2, 1/2)
    key_z, key_x = jax.random.split(key)
    z = jax.random.normal(key_z, (2,))
    return z, z + jax.random.normal(key_x, (2,))


def infer(shift, scale):
    return lambda key, x: dist.Normal(x / 2 + shift, scale * 0.5**0.5 * jnp.ones(2)).to_event(1)


@pytest.mark.parametrize(
    ("shift", "scale", "uniform", "symmetric"),
    [(0.0, 1.0, True, True), (0.0, 0.5, False, True), (0.4, 1.0, False, False), (0.4, 0.5, False, False)],
)
def test_narrow_guides_are_not_uniform_and_shifted_ones_not_symmetric(shift, scale, uniform, symmetric):
    result = calibrate(jax.random.key(0), simulate, infer(shift, scale))
    assert bool(jnp.all(result.uniform_p > 0.005)) == uniform
    assert bool(jnp.all(result.symmetric_p > 0.005)) == symmetric
    if shift:
        assert np.all(result.mean_share < 0.45)


def test_p_values_are_uniform_where_the_posterior_is_exact():
    keys = jax.random.split(jax.random.key(1), 60)
    results = [calibrate(key, simulate, infer(0.0, 1.0), num_simulations=200, num_draws=100) for key in keys[:3]]
    assert min(float(result.uniform_p.min()) for result in results) > 1e-3
    shares = jax.random.uniform(jax.random.key(2), (400, 300))
    from vi_jax.diagnostics import calibration

    for p_value in (calibration._uniform_p, calibration._symmetric_p):
        p = np.asarray(jax.vmap(p_value)(shares))
        assert abs(np.mean(p < 0.05) - 0.05) < 5 * (0.05 * 0.95 / 400) ** 0.5
        assert abs(np.mean(p < 0.5) - 0.5) < 5 * (0.25 / 400) ** 0.5 + 0.03  # the statistic is a step function of 300 signs


def test_the_laws_are_scipys():
    x = np.linspace(0.3, 2.0, 10)
    np.testing.assert_allclose([kolmogorov(v) for v in x], stats.kstwobign.sf(x), atol=1e-5)
    walk = np.cumsum(np.random.default_rng(0).choice([-1.0, 1.0], (20_000, 400)), axis=1) / 20
    np.testing.assert_allclose(brownian_supremum(jnp.asarray(1.55)), np.mean(np.abs(walk).max(1) > 1.549), atol=0.015)
