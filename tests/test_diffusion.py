"""Variational diffusion on Gaussian data, where the best network and every bound are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_mean, keys, normal
from scipy import special, stats

import vi_jax as vi
from vi_jax.models._noise import (
    NoisyPath,
    ReversePath,
    diffusion_loss,
    gammas,
    prior_kl,
    signal_and_noise,
)
from vi_jax.models.diffusion import diffusion

D = 3
GAMMA = {"first": jnp.float32(-6.0), "log_span": jnp.log(jnp.float32(11.0))}
ENDS = (-6.0, 5.0)
ENTROPY = 0.5 * D * np.log(2.0 * np.pi * np.e)


def nothing(params, z, gamma_t):
    """v = 0, the best for standard normal x: E[x | z] = alpha z."""
    return jnp.zeros_like(z)


def gap_of_chain(num_steps):
    """L in T steps for standard normal x, nats: 1/2 sum expm1(gamma_t - gamma_s) alpha_t^2 D
    (Kingma et al. 2021, eq. 14).
    """
    at = np.linspace(*ENDS, num_steps + 1)
    return 0.5 * D * (np.expm1(np.diff(at)) * special.expit(-at[1:])).sum()


@pytest.mark.integration
def test_gaussian_data_under_the_best_network_give_minus_the_entropy():
    """In continuous time: the mean bound of standard normal x is -H(x), whatever the ends."""

    @jax.jit
    @jax.vmap
    def bounds(key):
        key_x, key_0, key_t = jax.random.split(key, 3)
        x = jax.random.normal(key_x, (D,))
        alpha, sigma = signal_and_noise(GAMMA["first"])
        z_0 = alpha * x + sigma * jax.random.normal(key_0, (D,))
        # p(x | z_0) of real x: that of Bayes' rule
        log_lik = jax.scipy.stats.norm.logpdf(x, alpha * z_0, sigma).sum()
        loss = diffusion_loss(key_t, nothing, {}, GAMMA, x, 4)
        return log_lik - prior_kl(GAMMA, x).sum() - loss, loss

    found, losses = bounds(keys(0, 4_000))
    assert_mean(found, -ENTROPY)
    continuous = 0.5 * D * np.diff(np.log1p(np.exp(-np.array(ENDS[::-1]))))[0]
    assert_mean(losses, continuous)


@pytest.mark.integration
def test_bounds_of_finite_chains_fall_to_the_continuous_one():
    """E[log q(z | x) - log p(z)] of chains of 1 to 16 steps, against the closed form, which falls
    to the integral.
    """
    prior = float(np.mean(prior_kl(GAMMA, jnp.ones(D)))) * D  # x^2 has the mean 1
    before = np.inf
    for num_steps in (1, 2, 4, 16):
        steps = gammas(GAMMA, num_steps)
        reverse = ReversePath({}, steps, (D,), nothing)

        @jax.jit
        @jax.vmap
        def gaps(key, steps=steps, reverse=reverse):
            key_x, key_z = jax.random.split(key)
            q = NoisyPath(jax.random.normal(key_x, (D,)), steps)
            z = q.sample(key_z)
            return q.log_prob(z) - reverse.log_prob(z)

        expected = prior + gap_of_chain(num_steps)
        assert_mean(gaps(keys(num_steps, 2_000)), expected)
        assert expected < before
        before = expected
    continuous = 0.5 * D * np.diff(np.log1p(np.exp(-np.array(ENDS[::-1]))))[0]
    assert gap_of_chain(16) > gap_of_chain(1_000) > continuous
    np.testing.assert_allclose(gap_of_chain(100_000), continuous, rtol=1e-4)


@pytest.mark.integration
def test_a_noisy_path_is_the_same_chain_upwards():
    """log q(z_T | x) + sum log q(z_s | z_t, x) is log q(z_0 | x) + sum log q(z_t | z_s), and each
    z_t has the mean alpha_t x and the variance sigma_t^2.
    """
    x = np.array([0.5, -1.0, 2.0])
    q = NoisyPath(jnp.asarray(x, jnp.float32), gammas(GAMMA, 4))
    z = np.asarray(jax.jit(lambda key: q.sample(key, (3_000,)))(jax.random.key(1)), np.float64)
    np.testing.assert_allclose(q.mean, np.asarray(q.mean[:, :1]) * x / x[0], rtol=1e-5)
    assert z.shape == (3_000, 5, D)
    gamma = np.linspace(*ENDS, 5)
    alpha = np.sqrt(special.expit(-gamma))
    sigma = np.sqrt(special.expit(gamma))
    assert_mean(z, alpha[:, None] * x)
    assert_mean((z - alpha[:, None] * x) ** 2, np.repeat(sigma[:, None] ** 2, D, 1))
    upwards = stats.norm(alpha[0] * x, sigma[0]).logpdf(z[:5, 0]).sum(-1)
    for s in range(4):
        ratio = alpha[s + 1] / alpha[s]
        scale = np.sqrt(sigma[s + 1] ** 2 - ratio**2 * sigma[s] ** 2)
        upwards += stats.norm(ratio * z[:5, s], scale).logpdf(z[:5, s + 1]).sum(-1)
    found = jax.jit(jax.vmap(q.log_prob))(jnp.asarray(z[:5], jnp.float32))
    np.testing.assert_allclose(found, upwards, rtol=1e-4, atol=1e-3)


@pytest.mark.integration
def test_times_that_are_spread_have_less_variance():
    x = jnp.asarray(normal(2, D), jnp.float32)

    def far(params, z, gamma_t):  # an error that depends on the time
        return 5.0 * (gamma_t + 6.0) / 11.0 * jnp.ones_like(z)

    def losses(num_times):
        one = lambda key: diffusion_loss(key, far, {}, GAMMA, x, num_times)  # noqa: E731
        return np.asarray(jax.jit(jax.vmap(one))(keys(3, 2_000)))

    single = losses(1)
    spread = losses(4)
    assert abs(spread.mean() - single.mean()) < 5 * single.std() / 2_000**0.5
    assert spread.var() < 0.5 * single.var() / 4


@pytest.mark.integration
def test_the_likelihood_is_bayes_rule_over_the_levels():
    model = diffusion((2,), 5, hidden=(3,), num_steps=2)
    params = model.init(jax.random.key(0))
    params["gamma"]["first"] = jnp.float32(-1.0)
    z = jnp.asarray(normal(4, 3, 2), jnp.float32)
    x = jnp.array([1, 4])
    p = model.densities.decode(params, x, z)
    probs = np.stack([np.exp(p.log_prob(jnp.full(2, level))) for level in range(5)], 1)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-5)
    alpha = np.sqrt(special.expit(1.0))
    sigma = np.sqrt(special.expit(-1.0))
    each = stats.norm(alpha * np.linspace(-1, 1, 5), sigma).pdf(
        np.asarray(z[0], np.float64)[:, None]
    )
    np.testing.assert_allclose(probs, each / each.sum(1, keepdims=True), rtol=1e-4)


def test_sizes_and_likelihoods_that_cannot_be_are_refused():
    for bad in (
        lambda: diffusion((2,), 1),
        lambda: diffusion((2,), 5, num_steps=0),
        lambda: diffusion((2,), 5, num_times=0),
        lambda: diffusion((2,), 5, hidden=()),
        lambda: diffusion((2,), 5, likelihood=vi.models.likelihoods.bernoulli()),
        lambda: diffusion((2,), 5, likelihood=vi.models.likelihoods.categorical(7)),
    ):
        with pytest.raises(ValueError, match="diffusion expects"):
            bad()
