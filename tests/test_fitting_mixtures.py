"""Mixtures that correct importance weights by values alone: wider copies of a guide, and Student-t
components adapted to a posterior of few latents.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from helpers import assert_mean

import vi_jax as vi
from vi_jax.fitting import _fallback, population
from vi_jax.fitting.defensive import DEFENSIVE_SHARE, WIDER_BY, Defensive, widened
from vi_jax.fitting.population import StudentMixture, adapted

ROOT = jnp.array([[0.5, 0.0], [0.3, 2.0]])
GUIDE = dist.MultivariateNormal(jnp.array([1.0, -2.0]), scale_tril=ROOT)
DATA = jnp.array([1.2, 0.4, 2.0, -0.3, 0.9])


def two_parameters():
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    numpyro.sample("y", dist.Normal(mu, sigma), obs=DATA)


def by_quadrature():
    """Means and standard deviations of mu and sigma, and the log evidence, on a grid."""
    mu, sigma = np.meshgrid(np.linspace(-12, 14, 1501), np.exp(np.linspace(-3, 3.5, 801)))
    y = np.asarray(DATA)[:, None, None]
    log_p = scipy.stats.norm.logpdf(mu, 0, 10) + scipy.stats.halfnorm.logpdf(sigma, scale=5)
    log_p = log_p + scipy.stats.norm.logpdf(y, mu, sigma).sum(0) + np.log(sigma)
    p = np.exp(log_p)
    cell = 26 / 1500 * 6.5 / 800
    weights = p / p.sum()
    mean = np.array([(weights * mu).sum(), (weights * sigma).sum()])
    square = np.array([(weights * mu**2).sum(), (weights * sigma**2).sum()])
    return mean, np.sqrt(square - mean**2), np.log(p.sum() * cell)


def copies(log_weights):
    scales = jnp.array([1.0, 3.0])
    return Defensive(GUIDE, GUIDE.loc, scales, jnp.asarray(log_weights))


@pytest.mark.integration
def test_copies_of_a_gaussian_are_wider_gaussians():
    u = jnp.array([[0.3, 0.4], [5.0, -7.0], [1.0, -2.0]])
    wider = dist.MultivariateNormal(GUIDE.loc, scale_tril=3.0 * ROOT)
    mixed = jnp.log(0.25 * jnp.exp(GUIDE.log_prob(u)) + 0.75 * jnp.exp(wider.log_prob(u)))
    q = copies(jnp.log(jnp.array([0.25, 0.75])))
    log_prob = jax.jit(lambda q, u: q.log_prob(u))
    np.testing.assert_allclose(log_prob(q, u), mixed, rtol=2e-5)
    np.testing.assert_allclose(log_prob(q, u[0]), mixed[0], rtol=2e-5)
    np.testing.assert_allclose(log_prob(copies([0.0, -jnp.inf]), u), GUIDE.log_prob(u), rtol=2e-5)
    gradient = jax.jit(jax.grad(q.log_prob))(u[0])
    share = 0.25 * jnp.exp(GUIDE.log_prob(u[0]) - mixed[0])
    of_each = jax.vmap(jax.grad(lambda u: GUIDE.log_prob(u)))(u[:1])[0]
    expected = share * of_each + (1 - share) * of_each / 9.0
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


@pytest.mark.integration
def test_samples_of_copies_have_their_density():
    q = copies(jnp.log(jnp.array([0.5, 0.5])))
    u = q.sample(jax.random.key(0), (20_000,))
    assert_mean(u, GUIDE.loc)
    covariance = 0.5 * (1 + 9.0) * ROOT @ ROOT.T
    assert_mean((u - GUIDE.loc)[:, 0] ** 2, covariance[0, 0])
    # E_q[N(u) / q(u)] = 1
    assert_mean(jnp.exp(GUIDE.log_prob(u) - q.log_prob(u)), 1.0)
    assert q.sample(jax.random.key(1)).shape == (2,)


def density(u):
    """A standard normal, of evidence 0."""
    return dist.Normal(0.0, 1.0).log_prob(u).sum()


@pytest.fixture(scope="module")
def tails():
    q = dist.MultivariateNormal(jnp.zeros(4), scale_tril=0.5 * jnp.eye(4))  # k is 0.75
    run = jax.jit(lambda key: widened(key, density, q, num_draws=2000))
    alone = jax.jit(
        lambda key: vi.diagnostics.posterior.importance_sample(key, density, q, num_draws=2000)
    )
    return run(jax.random.key(0)), alone(jax.random.key(1))


@pytest.mark.integration
def test_wider_copies_mend_the_tails(tails):
    (q, weighted, num_values), alone = tails
    assert alone.k_hat > 0.6
    assert weighted.k_hat < 0.5
    assert weighted.effective > 1.5 * alone.effective
    assert abs(weighted.log_evidence) < 5 * weighted.log_evidence_stderr
    assert num_values == 3000
    # importance weights over the mixture are bounded by those over any copy
    share = jnp.exp(q.log_weights)
    assert share.sum() == pytest.approx(1.0, abs=1e-5)
    assert share.min() >= 0.99 * DEFENSIVE_SHARE / len(WIDER_BY)


MIXTURE = StudentMixture(
    jnp.log(jnp.array([0.3, 0.7])),
    jnp.array([[0.0, 1.0], [2.0, -1.0]]),
    jnp.stack([ROOT, jnp.array([[1.0, 0.0], [-0.5, 0.4]])]),
    jnp.array([5.0, 30.0]),
)


@pytest.mark.integration
def test_a_mixture_of_student_t_has_scipys_density():
    u = np.array([[0.3, 0.4], [9.0, -7.0]])
    expected = 0.0
    for k, weight in enumerate((0.3, 0.7)):
        shape = np.asarray(MIXTURE.root[k] @ MIXTURE.root[k].T)
        law = scipy.stats.multivariate_t(MIXTURE.loc[k], shape, df=float(MIXTURE.df[k]))
        expected = expected + weight * law.pdf(u)
    np.testing.assert_allclose(MIXTURE.log_prob(u), np.log(expected), rtol=2e-5)


@pytest.mark.integration
def test_samples_of_a_mixture_of_student_t_have_its_density():
    u = MIXTURE.sample(jax.random.key(0), (20_000,))
    assert_mean(u, MIXTURE.mean)
    q = dist.MultivariateNormal(jnp.array([1.0, 0.0]), jnp.eye(2))
    assert_mean(jnp.exp(q.log_prob(u) - MIXTURE.log_prob(u)), 1.0)
    assert MIXTURE.sample(jax.random.key(1)).shape == (2,)


@pytest.mark.integration
def test_an_adapted_mixture_has_the_moments_of_quadrature():
    mean, sd, log_evidence = by_quadrature()
    target = vi.targets.from_numpyro(two_parameters)
    # from a Gaussian that is a standard deviation off, and too wide
    loc = jnp.array([1.2, 0.4])
    run = jax.jit(
        lambda key: adapted(key, target.log_density, loc, 0.6 * jnp.eye(2), num_draws=4000)
    )
    q, weighted, num_values = run(jax.random.key(0))
    assert weighted.effective > 0.8 * 4000
    assert num_values % 4000 == 0
    z = jax.vmap(target.constrain)(weighted.u)
    weight = np.exp(np.asarray(weighted.log_weights))
    for name, m, s in zip(("mu", "sigma"), mean, sd, strict=True):
        assert abs(weight @ np.asarray(z[name]) - m) < 5 * s / weighted.effective**0.5
    assert abs(weighted.log_evidence - log_evidence) < 5 * weighted.log_evidence_stderr
    log_w = jax.vmap(target.log_density)(weighted.u) - jax.vmap(q.log_prob)(weighted.u)
    np.testing.assert_allclose(jnp.mean(log_w), weighted.elbo, atol=2e-3)


@pytest.mark.integration
def test_two_parameters_take_no_flow():
    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(two_parameters))
    assert result.method == "Student mixture after bam"
    assert result.evaluations < 5_000
    assert "; an adapted mixture by " in result.fallback
    assert "values is better" in result.fallback
    assert result.diagnostics.trusted
    mean, sd, _ = by_quadrature()
    moments = result.moments()
    assert abs(moments["mean"]["mu"] - mean[0]) < 0.1 * sd[0]
    assert abs(moments["mean"]["sigma"] - mean[1]) < 0.1 * sd[1]
    assert abs(moments["sd"]["sigma"] / sd[1] - 1) < 0.1
    assert np.isfinite(result.details.location_gradient).all()


@pytest.mark.integration
def test_what_is_wrong_decides_what_is_tried():
    target = vi.targets.from_log_density(density, 4)
    wide = vi.targets.from_log_density(density, population.UP_TO + 1)
    first = vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=100)

    def tried(target, k_hat, effective):
        weighted = first.weighted._replace(
            k_hat=jnp.asarray(k_hat), effective=jnp.asarray(effective)
        )
        poor = dataclasses.replace(first, target=target, weighted=weighted)
        found = _fallback.correction(poor)
        return found and found.what

    assert tried(target, 0.2, 99.0) is None  # nothing is wrong
    assert tried(target, 1.2, 2.0) == "an adapted mixture"
    assert tried(wide, 0.9, 40.0) == "a mixture with wider copies"  # tails
    assert tried(wide, 0.9, 2.0) is None  # another shape
    lost = dataclasses.replace(first, weighted=first.weighted._replace(num_bad=jnp.int32(3)))
    assert _fallback.correction(lost) is None
    assert not _fallback.corrects(0, target, None, spread=False)
    assert not _fallback.corrects(None, target, vi.methods.laplace(), spread=False)
    assert _fallback.corrects(None, target, None, spread=False)
