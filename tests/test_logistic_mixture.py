"""Mixtures of discretised logistics: they sum to 1, channel by channel and over pixels, at the
edges too; one component without coupling is the discretised logistic; their samples are theirs.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, assert_mean, keys, normal
from scipy.special import expit, log_softmax, logsumexp

from vi_jax.distributions import DiscretizedLogistic, LogisticMixture
from vi_jax.models import likelihoods

C = 3
K = 2


def made(num_levels, *, num_pixels=1, spread=1.0, shape=None):
    """A mixture whose channels are coupled."""
    middle = (num_levels - 1) / 2.0
    loc = middle * (1.0 + spread * normal(1, num_pixels, C, K))
    scale = num_levels * 0.1 * np.exp(0.5 * normal(2, num_pixels, C, K))
    coupling = 0.7 * normal(3, num_pixels, C, C, K)
    numbers = [jnp.asarray(each, jnp.float32) for each in (loc, scale, coupling)]
    logits = jnp.asarray(normal(0, num_pixels, K), jnp.float32)
    return LogisticMixture(logits, *numbers, num_levels=num_levels, shape=shape)


def in_numpy(p, x):
    """log p of one pixel x [C], in float64."""
    of_component = log_softmax(np.asarray(p.logits[0], np.float64))
    middle = (p.num_levels - 1) / 2.0
    for c in range(C):
        loc = np.asarray(p.loc[0, c], np.float64)
        for b in range(c):
            loc = loc + np.asarray(p.coupling[0, c, b], np.float64) * (x[b] - middle)
        scale = np.asarray(p.scale[0, c], np.float64)
        above = 1.0 if x[c] == p.num_levels - 1 else expit((x[c] + 0.5 - loc) / scale)
        below = 0.0 if x[c] == 0 else expit((x[c] - 0.5 - loc) / scale)
        of_component = of_component + np.log(above - below)
    return logsumexp(of_component)


@pytest.mark.integration
def test_pixels_sum_to_one_and_each_channel_given_those_before():
    p = made(5)
    every = np.array(list(itertools.product(range(5), repeat=C)), np.float32)  # [125, C]
    log_p = np.asarray(jax.jit(p.log_prob)(every[:, None])[:, 0], np.float64)
    np.testing.assert_allclose(np.exp(log_p.sum(1)).sum(), 1.0, rtol=1e-5)
    expected = [in_numpy(p, x) for x in every]
    np.testing.assert_allclose(log_p.sum(1), expected, rtol=1e-4, atol=1e-4)
    # x_3 runs fastest: its 5 values given (x_1, x_2)
    np.testing.assert_allclose(np.exp(log_p[:, 2]).reshape(25, 5).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p[::5, 1]).reshape(5, 5).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_p[::25, 0]).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.3, 30.0])
def test_256_values_sum_to_one_at_the_edges_too(spread):
    """Of the first channel, and of the last given the others at 0 and 255."""
    p = made(256, spread=spread)
    x = np.zeros((256, 1, C), np.float32)
    x[:, 0, 1] = 255.0
    x[:, 0, 2] = np.arange(256)
    of_last = jax.jit(p.log_prob)(x)[:, 0, 2]
    np.testing.assert_allclose(np.exp(np.asarray(of_last, np.float64)).sum(), 1.0, rtol=1e-4)
    x[:, 0, 0] = np.arange(256)
    of_first = jax.jit(p.log_prob)(x)[:, 0, 0]
    np.testing.assert_allclose(np.exp(np.asarray(of_first, np.float64)).sum(), 1.0, rtol=1e-4)
    assert all_finite(of_last)


@pytest.mark.integration
def test_gradients_are_finite_far_from_the_data():
    p = made(256, spread=30.0)

    def total(p):
        return p.log_prob(jnp.array([[0.0, 255.0, 128.0]])).sum()

    assert all_finite(jax.jit(jax.grad(total))(p))


@pytest.mark.integration
def test_one_component_without_coupling_is_the_discretised_logistic():
    loc = jnp.asarray(8.0 + 4.0 * normal(0, 2, C, 1), jnp.float32)
    p = LogisticMixture(jnp.zeros((2, 1)), loc, jnp.full((2, C, 1), 1.5), num_levels=16)
    x = jnp.arange(6.0).reshape(2, C)
    expected = DiscretizedLogistic(loc[..., 0], 1.5, 16).log_prob(x)
    np.testing.assert_allclose(jax.jit(p.log_prob)(x), expected, rtol=1e-5)
    one = DiscretizedLogistic(loc[..., 0], 1.5, 16)
    np.testing.assert_allclose(p.mean, one.mean, rtol=1e-5)
    np.testing.assert_allclose(p.variance, one.variance, rtol=1e-4)


@pytest.mark.integration
def test_its_samples_are_of_it():
    p = made(5)
    every = np.array(list(itertools.product(range(5), repeat=C)), np.float32)
    probability = np.exp(np.asarray(jax.jit(p.log_prob)(every[:, None])[:, 0], np.float64).sum(1))
    draws = jax.jit(lambda key: p.sample(key, (20_000,)))(keys(0, 1)[0])[:, 0]  # [S, C]
    second = np.asarray(draws[:, :, None] * draws[:, None, :], np.float64).reshape(-1, C * C)
    wanted = (every[:, :, None] * every[:, None, :]).reshape(-1, C * C)
    assert_mean(second, probability @ wanted)
    assert_mean(np.asarray(draws, np.float64), probability @ every)


@pytest.mark.integration
def test_x_may_be_laid_in_another_shape():
    p = made(16, num_pixels=4)
    flat = made(16, num_pixels=4, shape=(4 * C,))
    image = made(16, num_pixels=4, shape=(2, 2, C))
    x = jnp.arange(12.0)
    wanted = jax.jit(p.log_prob)(x.reshape(4, C))
    np.testing.assert_allclose(jax.jit(flat.log_prob)(x), wanted.ravel(), rtol=1e-5)
    laid = jax.jit(image.log_prob)(x.reshape(2, 2, C))
    np.testing.assert_allclose(laid.ravel(), wanted.ravel(), rtol=1e-5)
    assert image.sample(jax.random.key(0), (5,)).shape == (5, 2, 2, C)
    assert image.mean.shape == (2, 2, C)
    with pytest.raises(ValueError, match="as many elements as loc"):
        made(16, num_pixels=4, shape=(5, C))


@pytest.mark.integration
def test_the_likelihood_of_colour_couples_the_channels_of_a_pixel():
    """Flat outputs, as `log_lik` has them, and those of an image are one density; the order of
    couplings is red to green, red to blue, green to blue.
    """
    likelihood = likelihoods.logistic_mixture(16, num_components=K, num_channels=C)
    outputs = jnp.asarray(normal(5, 2, 2, C, likelihood.num_outputs), jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 2, C)))

    @jax.jit
    def both(outputs, x):
        flat = outputs.reshape(-1, likelihood.num_outputs)
        of_flat = likelihood.make({}, flat).log_prob(x.ravel())
        return of_flat, likelihood.make({}, outputs).log_prob(x)

    (of_flat, of_image) = both(outputs, x)
    np.testing.assert_allclose(of_flat, of_image.ravel(), rtol=1e-5)
    p = likelihood.make({}, outputs)
    wanted = in_numpy(p, np.asarray(x)[0, 0])
    np.testing.assert_allclose(of_image[0, 0].sum(), wanted, rtol=1e-4)
    slopes = np.tanh(np.asarray(outputs[0, 0, :, 3 * K :]))
    np.testing.assert_allclose(p.coupling[0, 1, 0], slopes[0], rtol=1e-5)
    np.testing.assert_allclose(p.coupling[0, 2, 0], slopes[1], rtol=1e-5)
    np.testing.assert_allclose(p.coupling[0, 2, 1], slopes[2], rtol=1e-5)
    grey = likelihoods.logistic_mixture(16, num_components=K)
    assert grey.num_outputs == 3 * K
    assert grey.make({}, jnp.zeros((2, 2, 3 * K))).coupling is None
    with pytest.raises(ValueError, match="num_components of at least 1"):
        likelihoods.logistic_mixture(num_components=0)
    with pytest.raises(ValueError, match=r"expects images \[..., 3\]"):
        likelihood.init((4, 4))
