"""One-hot classes, and Gaussians by the factor of their precision: densities, draws, moments,
shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, assert_mean, central_differences, keys, normal
from scipy import stats
from scipy.special import log_softmax, softmax

from vi_jax.distributions import OneHotCategorical, PrecisionNormal

LOGITS = np.array([0.4, -1.1, 2.0])


@pytest.mark.integration
def test_one_hot_is_the_categorical(x64):
    q = OneHotCategorical(jnp.asarray(LOGITS))
    plain = dist.Categorical(logits=jnp.asarray(LOGITS))
    values = q.enumerate_support()
    np.testing.assert_array_equal(values, np.eye(3))
    np.testing.assert_allclose(jax.vmap(q.log_prob)(values), log_softmax(LOGITS), rtol=1e-12)
    np.testing.assert_allclose(q.mean, softmax(LOGITS), rtol=1e-12)
    np.testing.assert_allclose(
        q.variance, stats.multinomial(1, softmax(LOGITS)).cov().diagonal(), rtol=1e-10
    )
    np.testing.assert_allclose(q.entropy(), plain.entropy(), rtol=1e-10)


def test_one_hot_draws():
    q = OneHotCategorical(jnp.asarray(LOGITS, jnp.float32))
    draws = q.sample(jax.random.key(0), (20_000,))
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_array_equal(draws.sum(-1), 1.0)
    assert_mean(draws, softmax(LOGITS))


def test_one_hot_far_out_and_at_impossible_classes():
    for logits in ([100.0, 0.0, -100.0], [0.0, 0.0, -np.inf]):
        f = lambda l: OneHotCategorical(l, validate_args=False).log_prob(jnp.array([1.0, 0.0, 0.0]))  # noqa: E731
        value, gradient = jax.value_and_grad(f)(jnp.array(logits, jnp.float32))
        np.testing.assert_allclose(value, log_softmax(logits)[0], atol=1e-6)
        np.testing.assert_allclose(gradient, np.eye(3)[0] - softmax(logits), atol=1e-6)


@pytest.mark.integration
def test_one_hot_batches():
    q = OneHotCategorical(jnp.zeros((4, 3)))
    assert (q.batch_shape, q.event_shape) == ((4,), (3,))
    assert q.sample(jax.random.key(0), (5,)).shape == (5, 4, 3)
    assert q.enumerate_support().shape == (3, 4, 3)
    assert q.enumerate_support(expand=False).shape == (3, 1, 3)
    assert q.log_prob(q.enumerate_support()).shape == (3, 4)
    with pytest.raises(ValueError, match=r"\[\.\.\., C\]; got the shape \(\)"):
        OneHotCategorical(1.0)
    with pytest.warns(UserWarning, match="Out-of-support"):
        OneHotCategorical(jnp.zeros(3), validate_args=True).log_prob(jnp.array([1.0, 1.0, 0.0]))


def band(t):
    """A bidiagonal factor of 4 x 4 from eight numbers."""
    return jnp.diag(jnp.exp(t[:4])).at[jnp.arange(1, 4), jnp.arange(3)].set(t[4:7])


THETA = 0.4 * normal(0, 7)
LOC = normal(1, 4)


def covariance(t):
    tril = np.asarray(band(t), np.float64)
    return np.linalg.inv(tril @ tril.T)


@pytest.mark.integration
def test_precision_normal_is_scipys(x64):
    q = PrecisionNormal(LOC, band(THETA))
    frozen = stats.multivariate_normal(LOC, covariance(THETA))
    z = normal(2, 5, 4)
    np.testing.assert_allclose(q.log_prob(z), frozen.logpdf(z), rtol=1e-9)
    np.testing.assert_allclose(q.covariance_matrix, covariance(THETA), rtol=1e-9)
    np.testing.assert_allclose(
        q.precision_matrix, np.linalg.inv(covariance(THETA)), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(q.variance, covariance(THETA).diagonal(), rtol=1e-9)
    np.testing.assert_allclose(q.entropy(), frozen.entropy(), rtol=1e-9)
    np.testing.assert_array_equal(q.mean, LOC)
    # a chain: z_i and z_(i + 2) meet through z_(i + 1) alone
    assert np.abs(np.triu(q.precision_matrix, 2)).max() == 0.0


@pytest.mark.integration
def test_precision_normal_gradient_of_its_density(x64):
    f = lambda t: PrecisionNormal(LOC, band(t)).log_prob(jnp.zeros(4))  # noqa: E731
    np.testing.assert_allclose(
        jax.grad(f)(THETA), central_differences(f, THETA), rtol=1e-7, atol=1e-8
    )


@pytest.mark.integration
def test_precision_normal_draws_and_their_gradient():
    """E[z z'] = covariance, and the slope of E[sum z^2] by central differences of its trace."""
    loc = jnp.asarray(LOC, jnp.float32)
    theta = jnp.asarray(THETA, jnp.float32)
    draws = PrecisionNormal(loc, band(theta)).sample(jax.random.key(0), (20_000,))
    assert_mean(draws, LOC)
    gap = draws - loc
    assert_mean(gap[:, :, None] * gap[:, None, :], covariance(THETA))
    f = lambda t, key: (PrecisionNormal(jnp.zeros(4), band(t)).sample(key) ** 2).sum()  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.grad(f), (None, 0)))(theta, keys(1, 20_000))
    assert_mean(slopes, central_differences(lambda t: np.trace(covariance(t)), THETA))


@pytest.mark.integration
def test_precision_normal_batches_and_pytree():
    q = PrecisionNormal(jnp.zeros(3), jnp.tile(2.0 * jnp.eye(3), (4, 1, 1)))
    assert (q.batch_shape, q.event_shape) == ((4,), (3,))
    z = q.sample(jax.random.key(0), (5,))
    assert z.shape == (5, 4, 3)
    assert q.log_prob(z).shape == (5, 4)
    assert q.mean.shape == q.variance.shape == (4, 3)
    np.testing.assert_allclose(jax.jit(lambda q, z: q.log_prob(z))(q, z), q.log_prob(z), rtol=1e-5)
    assert all_finite(jax.grad(lambda q: q.log_prob(z).sum())(q))


@pytest.mark.parametrize(
    ("loc", "tril"), [(jnp.zeros(3), jnp.eye(4)), (0.0, jnp.eye(1)), (jnp.zeros(3), jnp.ones(3))]
)
def test_precision_normal_shapes_are_checked(loc, tril):
    with pytest.raises(ValueError, match=r"precision_tril of shape \[\.\.\., D, D\]; got"):
        PrecisionNormal(loc, tril)
