"""Appendix D's estimator of log p(x), on a linear normal model, whose evidence is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal
from scipy import stats

import vi_jax as vi
from vi_jax.diagnostics import reciprocal_evidence

D = 2
P = 4
NOISE = 0.7
WEIGHTS = normal(0, D, P)
X = normal(1, P)


def log_joint(z):
    """z ~ N(0, I), x ~ N(z W, noise^2 I)."""
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum()
    return prior + dist.Normal(z @ jnp.asarray(WEIGHTS), NOISE).log_prob(jnp.asarray(X)).sum()


def truth():
    cov = WEIGHTS.T @ WEIGHTS + NOISE**2 * np.eye(P)
    return stats.multivariate_normal(np.zeros(P), cov).logpdf(X)


def posterior():
    precision = np.eye(D) + WEIGHTS @ WEIGHTS.T / NOISE**2
    cov = np.linalg.inv(precision)
    return cov @ WEIGHTS @ X / NOISE**2, cov


def estimates(q, num, **numbers):
    one = lambda key: reciprocal_evidence(key, log_joint, q, **numbers)  # noqa: E731
    return jax.jit(jax.vmap(one))(keys(2, num))


@pytest.mark.integration
def test_its_reciprocal_is_right_on_average_and_its_logarithm_above(no_key_check):
    """From exact posterior samples: E[e^-estimate] = 1 / p(x), and by Jensen E[estimate] > log p,
    by Var(f / p) / 2 L to first order.
    """
    loc, cov = posterior()
    q = dist.MultivariateNormal(jnp.asarray(loc), jnp.asarray(cov))
    found = estimates(q, 1_000, num_samples=8, num_transitions=1, step_size=0.4)
    error = np.asarray(found.log_p, np.float64) - truth()
    assert_mean(np.exp(-error), 1.0)
    assert error.mean() > 3 * error.std() / len(error) ** 0.5
    assert error.mean() == pytest.approx(error.var() / 2, rel=0.5)
    assert 0.8 < float(found.acceptance.mean()) <= 1.0


@pytest.mark.integration
def test_chains_from_a_wrong_guide_come_to_the_evidence(no_key_check):
    loc, cov = posterior()
    q = dist.Normal(jnp.asarray(loc) + 0.5, 2.0 * jnp.sqrt(jnp.diagonal(jnp.asarray(cov))))
    found = estimates(q.to_event(1), 100, num_samples=100, num_transitions=30)
    error = np.asarray(found.log_p, np.float64) - truth()
    assert abs(error.mean()) < 0.05
    assert error.std() < 0.2


def test_what_cannot_be_estimated_is_refused():
    q = dist.Normal(jnp.zeros(D), 1.0).to_event(1)
    with pytest.raises(ValueError, match="above their number; got 2"):
        reciprocal_evidence(jax.random.key(0), log_joint, q, num_samples=2)
    with pytest.raises(ValueError, match="are discrete"):
        vi.diagnostics.reciprocal_evidence(
            jax.random.key(0), lambda z: z.sum(), dist.Bernoulli(0.5 * jnp.ones(2)).to_event(1)
        )
