"""log p(x) by adaptive importance sampling, where the evidence is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys
from jax.scipy import stats
from scipy import integrate

from vi_jax.diagnostics import adaptive, adaptive_evidence

PRIOR = dist.Normal(jnp.zeros(2), 1.0).to_event(1)


def two_modes(z):
    """z ~ N(0, I); |z_0| = 1.5 seen with noise of 0.1, z_0 - z_1 = 0.3 with noise of 0.2."""
    seen = dist.Normal(jnp.abs(z[0]), 0.1).log_prob(1.5)
    return PRIOR.log_prob(z) + seen + dist.Normal(z[0] - z[1], 0.2).log_prob(0.3)


def truth():
    grid = np.linspace(-4.0, 4.0, 1_601)
    (a, b) = np.meshgrid(grid, grid, indexing="ij")
    values = np.exp(jax.vmap(two_modes)(jnp.stack([a.ravel(), b.ravel()], 1)))
    inner = integrate.simpson(np.asarray(values, np.float64).reshape(a.shape), x=grid)
    return np.log(integrate.simpson(inner, x=grid))


@pytest.mark.integration
@pytest.mark.usefixtures("no_key_check")
def test_a_guide_of_one_mode_and_the_prior_find_both():
    q = dist.Normal(jnp.array([1.6, 1.1]), jnp.array([0.05, 0.1])).to_event(1)
    one = lambda key: adaptive_evidence(key, two_modes, q, others=(PRIOR,))  # noqa: E731
    found = jax.jit(jax.vmap(one))(keys(0, 100))
    error = np.asarray(found.log_p, np.float64) - truth()
    assert_mean(np.exp(error), 1.0)
    assert error.std() < 0.06
    assert float(found.effective.min()) > 200  # of 2,000: kernels as wide as both modes


@pytest.mark.integration
@pytest.mark.usefixtures("no_key_check")
def test_a_guide_that_is_far_off_comes_to_the_evidence():
    """z ~ N(0, I_3), x_i ~ N(z_i, 0.1^2): the guide is ten of the posterior's deviations away."""
    x = jnp.array([0.5, -1.0, 2.0])

    def log_joint(z):
        prior = stats.norm.logpdf(z["a"]) + stats.norm.logpdf(z["b"]).sum()
        rows = jnp.append(z["a"], z["b"])
        return prior + stats.norm.logpdf(x, rows, 0.1).sum()

    class Guide:
        def sample(self, key, sample_shape=()):
            key_a, key_b = jax.random.split(key)
            a = 1.5 + 0.1 * jax.random.normal(key_a, sample_shape)
            return {"a": a, "b": 0.1 * jax.random.normal(key_b, (*sample_shape, 2))}

        def log_prob(self, z):
            b = stats.norm.logpdf(z["b"], 0.0, 0.1).sum(-1)
            return stats.norm.logpdf(z["a"], 1.5, 0.1) + b

    found = jax.jit(
        jax.vmap(lambda key: adaptive_evidence(key, log_joint, Guide(), num_rounds=10))
    )(keys(2, 30))
    want = float(stats.norm.logpdf(x, 0.0, 1.01**0.5).sum())
    np.testing.assert_allclose(found.log_p, want, atol=0.15)
    assert_mean(np.exp(np.asarray(found.log_p, np.float64) - want), 1.0)


@pytest.mark.integration
def test_kernels_have_the_density_of_their_samples():
    kernels = adaptive.Kernels(jnp.array([[0.0], [3.0]]), jnp.array([[0.5]]))
    grid = np.linspace(-60.0, 60.0, 24_001)
    total = integrate.simpson(np.exp(kernels.log_prob(grid[:, None])), x=grid)
    assert total == pytest.approx(1.0, abs=1e-4)
    drawn = np.asarray(kernels.sample(jax.random.key(3), 40_000))[:, 0]
    assert_mean(drawn, 1.5)
    variance = 1.5**2 + 0.25 * 5.0 / 3.0
    assert_mean((drawn - 1.5) ** 2, variance)


@pytest.mark.integration
def test_weights_on_one_sample_are_spread():
    (spread, power) = adaptive._spread(jnp.array([0.0, -50.0, -60.0, -80.0, -90.0]), 4.0)
    assert 0.0 < float(power) < 1.0
    effective = np.exp(adaptive._log_effective(spread))
    assert effective == pytest.approx(4.0, abs=1e-2)
    even = jnp.zeros(5)
    (spread, power) = adaptive._spread(even, 4.0)
    np.testing.assert_array_equal(spread, even)
    assert float(power) == 1.0


@pytest.mark.integration
def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="above 4"):
        adaptive_evidence(jax.random.key(0), two_modes, PRIOR, num_samples=4)
