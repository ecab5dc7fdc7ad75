"""The ELBO's slopes against closed forms, and traces that are at rest, drift, or only rise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vi_jax.diagnostics.optimum import rest, slopes

ROOT = jnp.array([[1.0, 0.0], [0.8, 0.6]])


def log_density(u):  # of a correlated Gaussian, unit variances, to 2 nats
    return 2.0 + dist.MultivariateNormal(jnp.zeros(2), scale_tril=ROOT).log_prob(u)


def measured(q, num=4000):
    u = q.sample(jax.random.key(0), (num,))
    return jax.jit(lambda u: slopes(log_density, q, u))(u)


def test_at_the_posterior_every_term_is_0():
    found = measured(dist.MultivariateNormal(jnp.zeros(2), scale_tril=ROOT))
    for gradient in (found.location, found.log_scale):
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert found.signal_to_noise < 0.1


@pytest.mark.integration
def test_elsewhere_they_are_the_gradients_of_the_elbo():
    loc = jnp.array([0.3, -0.1])
    log_scale = jnp.array([-0.7, -0.2])

    def negative_kl(loc, log_scale):
        p = dist.MultivariateNormal(jnp.zeros(2), scale_tril=ROOT)
        return -dist.kl_divergence(
            dist.MultivariateNormal(loc, scale_tril=jnp.diag(jnp.exp(log_scale))), p
        )

    by_loc, by_log_scale = jax.grad(negative_kl, (0, 1))(loc, log_scale)
    found = measured(dist.Normal(loc, jnp.exp(log_scale)).to_event(1))
    for gradient, z, exact in (
        (found.location, found.location_z, jnp.exp(log_scale) * by_loc),
        (found.log_scale, found.log_scale_z, by_log_scale),
    ):
        np.testing.assert_array_less(np.abs(gradient - exact), 5 * np.abs(gradient / z))
    assert found.signal_to_noise > 0.2
    at_best = dist.Normal(jnp.zeros(2), jnp.full(2, 0.6)).to_event(1)  # 1 / precision_jj = 0.36
    found = measured(at_best)
    assert np.abs(found.location_z).max() < 4 > np.abs(found.log_scale_z).max()
    assert found.signal_to_noise < 0.05


@pytest.mark.integration
def test_draws_at_which_the_density_is_nan_are_left_out():
    q = dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)
    u = q.sample(jax.random.key(0), (500,)).at[3].set(1e4)
    found = slopes(lambda u: jnp.where(u[0] > 1e3, jnp.nan, 1.0) * log_density(u), q, u)
    assert np.all(np.isfinite(found.location))


def test_a_trace_at_rest_and_one_that_drifts():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=4000)
    still = rest(np.concatenate([np.full(7, np.nan), noise]))
    assert still.r_hat < 1.01
    assert still.num == 2000
    np.testing.assert_allclose(still.mcse, 2000**-0.5, rtol=0.4)
    # standard error of a mean: 20 times that of the noise
    sticky = np.convolve(noise, np.ones(20), "valid")
    np.testing.assert_allclose(rest(sticky).mcse, 20 * 1990**-0.5, rtol=0.5)
    assert rest(noise + np.linspace(0, 10, 4000)).r_hat > 1.5


def test_an_ascent_has_nothing_to_come_to_rest():
    assert np.isnan(rest(np.sqrt(np.arange(100.0))).r_hat)
    assert np.isnan(rest(np.zeros(5)).r_hat)
