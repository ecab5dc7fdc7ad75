"""Expectation propagation: exact where sites are Gaussian, near quadrature where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import log_ndtr, logsumexp

from vi_jax.conjugate import ep


def labels(num_data=40, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(num_data), 1.5 * rng.standard_normal(num_data)])
    return x, (rng.uniform(size=num_data) < 1 / (1 + np.exp(-x @ np.array([-0.5, 1.2])))).astype(
        float
    )


def grid_posterior(x, y, log_lik, precision):
    """log p(y), mean and sd of w [2] by a sum over a grid."""
    side = np.linspace(-8, 8, 801)
    w = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    log_p = (
        log_lik((2 * y - 1) * (w @ x.T)).sum(1)
        - 0.5 * precision * (w**2).sum(1)
        + np.log(precision / (2 * np.pi))
    )
    log_z = logsumexp(log_p)
    weights = np.exp(log_p - log_z)
    mean = weights @ w
    return log_z + 2 * np.log(side[1] - side[0]), mean, np.sqrt(weights @ (w - mean) ** 2)


@pytest.mark.integration
def test_with_gaussian_sites_one_full_sweep_is_exact(x64):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, 3))
    y = rng.standard_normal(12)
    normal = lambda a, y: jax.scipy.stats.norm.logpdf(y, a, 1.5)  # noqa: E731
    x = jnp.asarray(x)
    y = jnp.asarray(y)
    sweep = jax.jit(lambda state: ep.step(normal, x, y, state, precision=2.0, damping=1.0))
    state = sweep(ep.init(x, precision=2.0))
    precision = 2 * np.eye(3) + x.T @ x / 2.25
    np.testing.assert_allclose(state.natural["precision"], precision, rtol=1e-5)
    np.testing.assert_allclose(state.natural["shift"], x.T @ y / 2.25, rtol=1e-5)
    state = sweep(state)
    marginal = dist.MultivariateNormal(jnp.zeros(12), x @ x.T / 2 + 2.25 * jnp.eye(12))
    np.testing.assert_allclose(state.log_evidence, marginal.log_prob(y), rtol=1e-6)


@pytest.mark.cases(rest=None, slow=["probit-log_ndtr"])
@pytest.mark.integration
@pytest.mark.parametrize(
    ("log_lik", "by_numpy"), [(ep.logistic, lambda a: -np.logaddexp(0, -a)), (ep.probit, log_ndtr)]
)
def test_classification_is_near_quadrature(log_lik, by_numpy):
    x, y = labels()
    evidence, mean, sd = grid_posterior(x, y, by_numpy, 1.0)
    fit = ep.fit(x, y, log_lik)
    assert fit.converged
    np.testing.assert_allclose(fit.log_evidence, evidence, atol=0.02)
    np.testing.assert_allclose((fit.posterior.mean - mean) / sd, 0, atol=0.03)
    np.testing.assert_allclose(
        jnp.sqrt(jnp.diag(fit.posterior.covariance_matrix)) / sd, 1, atol=0.03
    )


@pytest.mark.integration
def test_at_the_end_marginals_match_the_tilted_ones(x64):
    x, y = (jnp.asarray(leaf) for leaf in labels(15, seed=2))
    state = ep.fit(x, y, ep.probit, tolerance=1e-9).state
    q = dist.MultivariateNormal(0.0, precision_matrix=state.natural["precision"])
    mean = q.covariance_matrix @ state.natural["shift"]
    # every site: the moments of q without the site times its likelihood are those of q
    for n in range(3):
        rest = state.natural["precision"] - state.precision[n] * jnp.outer(x[n], x[n])
        cavity_mean = jnp.linalg.solve(rest, state.natural["shift"] - state.shift[n] * x[n])
        m = x[n] @ cavity_mean
        v = x[n] @ jnp.linalg.solve(rest, x[n])
        a = np.linspace(-12, 12, 20_001)
        p = np.exp(log_ndtr((2 * y[n] - 1) * a) - 0.5 * (a - m) ** 2 / v)
        p = np.asarray(p / p.sum())
        np.testing.assert_allclose(p @ a, x[n] @ mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(
            p @ a**2 - (p @ a) ** 2, x[n] @ q.covariance_matrix @ x[n], rtol=1e-6
        )


@pytest.mark.integration
def test_sites_held_at_precision_0_are_counted_and_do_not_pass_for_an_answer():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(30), rng.standard_normal(30)])
    y = x @ np.array([1.0, 2.0]) + rng.standard_normal(30)
    # far out, under a likelihood with heavy tails: these sites want a negative precision
    y[:3] += 12
    fit = ep.fit(x, y, lambda a, y: jax.scipy.stats.t.logpdf(y - a, 2.0))
    assert np.all(np.asarray(fit.state.precision)[:3] == 0)
    assert 3 <= fit.state.sites_clipped == np.sum(np.asarray(fit.state.precision) == 0)
    assert not fit.converged
    # concave, and one is steep: no site is near 0 by more than rounding
    for log_lik in (ep.logistic, ep.probit):
        for scale in (1.0, 20.0):
            x, y = labels()
            fit = ep.fit(scale * x, y, log_lik)
            assert (fit.state.sites_clipped, fit.state.cavities_clipped) == (0, 0)


@pytest.mark.integration
def test_a_cavity_that_rounding_left_without_precision_is_counted():
    x = jnp.array([[3e3], [1.0]])
    y = jnp.array([1.0, 0.0])
    state = ep.init(x)._replace(
        precision=jnp.ones(2), natural={"shift": jnp.zeros(1), "precision": 1 + x.T @ x}
    )
    assert ep.step(ep.logistic, x, y, state).cavities_clipped == 1
    assert ep.step(ep.logistic, x, y, ep.init(x)).cavities_clipped == 0


@pytest.mark.slow
def test_evidence_in_five_dimensions_against_importance_sampling():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 5))
    y = (
        rng.uniform(size=200) < 1 / (1 + np.exp(-x @ np.array([1.0, -1.0, 0.5, 0.0, 2.0])))
    ).astype(float)
    fit = ep.fit(x, y, precision=0.5)
    q = fit.posterior
    prior = dist.MultivariateNormal(jnp.zeros(5), 2.0 * jnp.eye(5))
    w = q.sample(jax.random.key(0), (50_000,))
    a = w @ x.T
    log_w = prior.log_prob(w) - q.log_prob(w) - jnp.logaddexp(0, -(2 * y - 1) * a).sum(1)
    np.testing.assert_allclose(
        fit.log_evidence, jax.nn.logsumexp(log_w) - np.log(50_000), atol=0.02
    )
