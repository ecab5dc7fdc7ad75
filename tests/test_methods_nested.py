"""Nested Laplace approximation on a hierarchy with Gaussian conditionals, against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from scipy import stats
from scipy.special import logsumexp

import vi_jax as vi
from vi_jax.methods._nested_guide import Skewed, features
from vi_jax.methods._skew import shape_of_skewness, skew
from vi_jax.methods._structured import hubs, structured
from vi_jax.methods.nested_laplace import lattice

NUM_GROUPS = 20
DATA = 1.5 * normal(0, NUM_GROUPS) + 0.7


def groups(u):
    """log tau, z_1 .. z_20 and mu: z ~ N(mu, tau), y ~ N(z, 1); mu and log tau are normal."""
    log_tau = u[0]
    mu = u[-1]
    z = u[1:-1]
    prior = -0.5 * jnp.sum((z - mu) ** 2) * jnp.exp(-2 * log_tau) - NUM_GROUPS * log_tau
    return prior - 0.5 * jnp.sum((DATA - z) ** 2) - 0.5 * (mu / 2) ** 2 - 0.5 * log_tau**2


def quadrature():
    """log of the integral, and mean and sd of log tau and mu."""
    log_tau = np.linspace(-5, 5, 801)[:, None]
    mu = np.linspace(-8, 8, 801)
    log_p = stats.norm.logpdf(DATA[:, None, None], mu, np.sqrt(1 + np.exp(2 * log_tau))).sum(
        0
    ) + NUM_GROUPS * np.log(2 * np.pi)
    log_p = log_p - 0.5 * (mu / 2) ** 2 - 0.5 * log_tau**2
    p = np.exp(log_p - logsumexp(log_p))
    cell = np.log((mu[1] - mu[0]) * (log_tau[1, 0] - log_tau[0, 0]))
    moments = []
    for x, along in ((log_tau[:, 0], p.sum(1)), (mu, p.sum(0))):
        mean = along @ x
        moments.append((mean, np.sqrt(along @ (x - mean) ** 2)))
    return logsumexp(log_p) + cell, moments


@pytest.fixture(scope="module")
def result():
    target = vi.targets.from_log_density(groups, NUM_GROUPS + 2)
    method = vi.methods.nested_laplace([0, NUM_GROUPS + 1])
    return vi.fit(jax.random.key(0), target, method)


@pytest.mark.integration
def test_moments_and_evidence_are_those_of_quadrature(result):
    evidence, moments = quadrature()
    d = result.diagnostics
    assert result.converged
    assert d.verdict in ("reliable", "corrected only")
    assert d.effective > 0.7 * d.num_draws
    assert abs(d.log_evidence - evidence) < 5 * d.log_evidence_stderr + 1e-3
    assert evidence - d.elbo < 0.1
    weights = np.exp(result.weighted.log_weights)
    for which, (mean, sd) in zip((0, -1), moments, strict=True):
        x = np.asarray(result.weighted.u)[:, which]
        found = weights @ x
        stderr = sd / np.sqrt(d.effective)
        assert abs(found - mean) < 5 * stderr
        assert abs(np.sqrt(weights @ (x - found) ** 2) / sd - 1) < 5 / np.sqrt(d.effective)


@pytest.mark.integration
def test_its_samples_follow_its_density(result):
    """A sample has the density of its standard normals over the volume that they are moved to."""
    q = result.guide
    eps = jnp.asarray(normal(1, NUM_GROUPS + 2), jnp.float32)
    slope = jax.jit(jax.jacfwd(q.transport))(eps)
    expected = stats.norm.logpdf(eps).sum() - np.linalg.slogdet(slope)[1]
    log_q = jax.jit(lambda eps: q.log_prob(q.transport(eps)))(eps)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4)


@pytest.mark.integration
def test_skewed_hyperparameters_have_the_density_of_their_samples(x64):
    skewness = jnp.array([0.8, -0.4])
    q = Skewed(
        jnp.array([1.0, 2.0]), jnp.array([[0.5, 0.0], [0.3, 2.0]]), shape_of_skewness(skewness)
    )
    x = jnp.array([0.7, -1.3])
    back, log_q = q.inverse(q.transport(x))
    np.testing.assert_allclose(back, x, rtol=1e-10)
    slope = np.asarray(jax.jacfwd(q.transport)(x))
    expected = stats.norm.logpdf(x).sum() - np.linalg.slogdet(slope)[1]
    np.testing.assert_allclose(log_q, expected, rtol=1e-10)
    nodes, weight = np.polynomial.hermite_e.hermegauss(60)
    y = np.stack([np.asarray(skew(jnp.full(2, node), q.shape)) for node in nodes])
    weight = weight / weight.sum()
    np.testing.assert_allclose(weight @ y, 0, atol=1e-8)
    np.testing.assert_allclose(weight @ y**2, 1, rtol=1e-6)
    np.testing.assert_allclose(weight @ y**3, skewness, rtol=1e-3)


def test_features_are_orthonormal_under_the_standard_normal():
    nodes, weight = np.polynomial.hermite_e.hermegauss(30)
    keep = np.abs(nodes) < 4
    table = np.stack([np.asarray(features(jnp.array([x]))) for x in nodes[keep]])
    gram = (table * (weight / weight.sum())[keep, None]).T @ table
    np.testing.assert_allclose(gram[:4, :4], np.eye(4), atol=0.05)  # clipped beyond 4


@pytest.mark.cases(rest="slow", integration=["12"])
@pytest.mark.parametrize("num_hypers", [1, 3, 12])
def test_the_lattice_has_the_moments_of_the_standard_normal(num_hypers):
    x = np.asarray(lattice(jax.random.key(0), num_hypers))
    assert np.abs(x.mean(0)).max() < 0.15
    assert np.abs(x.std(0) - 1).max() < 0.15


@pytest.mark.parametrize("hypers", [[], [0, 0], [-1], range(13)])
def test_hyperparameters_that_are_none_are_refused(hypers):
    with pytest.raises(ValueError, match="different latents as hyperparameters"):
        vi.methods.nested_laplace(hypers)


def test_hyperparameters_are_not_all_latents():
    method = vi.methods.nested_laplace([0, 1])
    with pytest.raises(ValueError, match="and not all"):
        method.init(jax.random.key(0), groups, jnp.zeros(2))


def test_latents_that_touch_many_are_hubs():
    pattern = np.eye(40, dtype=bool)
    pattern[[3, 7]] = True
    pattern[:, [3, 7]] = True
    assert hubs(pattern).tolist() == [3, 7]
    assert hubs(np.eye(40, dtype=bool)).size == 0


@pytest.mark.integration
def test_it_is_picked_for_many_latents_under_a_scale_and_says_so():
    def walk(u):
        x = u[1:]
        return -0.5 * jnp.sum(jnp.diff(x) ** 2) * jnp.exp(-2 * u[0]) - 0.5 * u @ u

    target = vi.targets.from_log_density(walk, 402)
    found = structured(jax.random.key(0), target, jnp.zeros(402))
    assert found.method.name == "nested_laplace"
    assert found.why.startswith("a Gaussian of 401 latents given 1 that touch many (z[0])")
    alone = structured(
        jax.random.key(0),
        vi.targets.from_log_density(lambda u: -jnp.cosh(u).sum(), 402),
        jnp.zeros(402),
    )
    assert alone.method.name == "variational_newton"


@pytest.mark.integration
def test_a_choice_without_a_finite_answer_gives_way_to_another_and_says_so():
    from vi_jax.fitting._fit import _first
    from vi_jax.fitting._once import Plan
    from vi_jax.methods.default import Choice

    target = vi.targets.from_log_density(lambda u: -0.5 * u @ u, 2)
    answer = vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=100)
    bad = vi.methods.nested_laplace()

    def run(key, plan):
        if plan.method is bad:
            raise FloatingPointError("no step had a finite value")
        return answer

    choice = Choice(bad, "", otherwise=vi.methods.laplace())
    result = _first(jax.random.key(0), run, choice, Plan(bad))
    assert result.why == "nested_laplace failed: no step had a finite value"
    with pytest.raises(FloatingPointError, match="no step"):
        _first(jax.random.key(0), run, Choice(bad, ""), Plan(bad))
