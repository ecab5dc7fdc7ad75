"""What a fit hands on: replicates, log likelihoods, and Markov chains that go on from the guide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax import targets
from vi_jax.fitting import sampling

COVARIATES = jnp.linspace(-1.0, 1.0, 12)
DATA = 1.0 + 2.0 * COVARIATES + 0.3 * jnp.sin(40.0 * COVARIATES)


def line(x, y=None):
    """A straight line with known noise: its posterior is Gaussian."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 10.0))
    mean = numpyro.deterministic("mean", intercept + slope * x)
    numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def exact():
    """(mean [2], covariance [2, 2]) of (intercept, slope) given the data."""
    design = np.stack([np.ones(12), np.asarray(COVARIATES)], 1)
    precision = design.T @ design / 0.25 + np.eye(2) / 100.0
    covariance = np.linalg.inv(precision)
    return covariance @ design.T @ np.asarray(DATA) / 0.25, covariance


@pytest.fixture(scope="module")
def fitted():
    return vi.fit(
        jax.random.key(0), targets.from_numpyro(line, COVARIATES, DATA), vi.methods.laplace()
    )


@pytest.mark.integration
def test_replicates_have_the_predictive_moments(fitted):
    draws = fitted.predictive(jax.random.key(1), num_draws=4000)["y"]
    assert draws.shape == (4000, 12)
    mean, covariance = exact()
    design = np.stack([np.ones(12), np.asarray(COVARIATES)], 1)
    variance = np.einsum("ni,ij,nj->n", design, covariance, design) + 0.25
    standard_error = np.sqrt(variance / 4000)
    assert np.all(np.abs(draws.mean(0) - design @ mean) < 5 * standard_error)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.15)


def test_replicates_are_as_many_as_the_data_without_a_plate():
    def one_mean(x):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    observed = targets.from_numpyro(one_mean, DATA).observed
    draws = observed.replicate(jax.random.key(0), {"mu": jnp.zeros(50)})["x"]
    assert draws.shape == (50, 12)
    assert draws.std(1).min() > 0.1


@pytest.mark.integration
def test_new_covariates_are_predicted(fitted):
    new = jnp.array([5.0])
    draws = fitted.predictive(jax.random.key(1), new, num_draws=500)
    assert draws["y"].shape == (500, 1)
    mean, _ = exact()
    # deterministic sites are those of the new covariates too
    np.testing.assert_allclose(draws["mean"].mean(), mean @ [1.0, 5.0], atol=0.3)


@pytest.mark.integration
def test_log_likelihoods_are_those_of_each_number(fitted):
    z = fitted.sample(jax.random.key(2), 3)
    values = fitted.target.observed.log_likelihood(z)["y"]
    mean = z["intercept"][:, None] + z["slope"][:, None] * COVARIATES
    np.testing.assert_allclose(values, dist.Normal(mean, 0.5).log_prob(DATA), rtol=1e-5)


@pytest.mark.integration
def test_arviz_is_given_them_for_leave_one_out(fitted):
    pytest.importorskip("arviz")
    data = fitted.to_arviz(jax.random.key(2), 50)
    values = np.asarray(data["log_likelihood"]["y"])
    assert values.shape == (1, 50, 12)
    assert np.isfinite(values).all()


@pytest.mark.integration
def test_a_density_alone_says_nothing_of_data():
    target = targets.from_log_density(lambda z: -0.5 * jnp.sum(z**2), jnp.zeros(2))
    result = vi.fit(jax.random.key(0), target, vi.methods.laplace())
    with pytest.raises(ValueError, match=r"predictive wants .*from_numpyro"):
        result.predictive(jax.random.key(1))
    with pytest.raises(ValueError, match=r"'nuts'; got 'gibbs'"):
        result.continue_with("gibbs", jax.random.key(1))


@pytest.mark.integration
def test_chains_go_on_from_the_guide_to_the_posterior(fitted):
    chains = fitted.continue_with("nuts", jax.random.key(3), num_chains=2, num_draws=1000)
    assert chains.verdict == "reliable", chains
    mean, covariance = exact()
    moments = chains.moments()
    for at, name in enumerate(("intercept", "slope")):
        sd = np.sqrt(covariance[at, at])
        assert abs(moments["mean"][name] - mean[at]) < 5 * sd / np.sqrt(chains.effective)
        np.testing.assert_allclose(moments["sd"][name], sd, rtol=0.15)
    assert chains.guide_distance < 0.2
    assert "reliable" in str(chains)


@pytest.mark.integration
def test_chains_in_two_modes_are_not_reliable():
    def density(z):
        return jnp.logaddexp(-0.5 * (z[0] - 8.0) ** 2, -0.5 * (z[0] + 8.0) ** 2) - 0.5 * z[1] ** 2

    target = targets.from_log_density(density, jnp.zeros(2))
    starts = jnp.array([[8.0, 1.0], [-8.0, -1.0]])
    chains = sampling.continue_with_nuts(
        target, starts, jax.random.key(0), num_warmup=100, num_draws=100
    )
    assert chains.verdict == "not reliable"
    assert "R-hat" in chains.advice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(num_chains=0), "num_chains 0"),
        (dict(num_draws=2), "num_draws 2"),
        (dict(num_chains=5000), "got 4000"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fitted, options, said):
    with pytest.raises(ValueError, match=said):
        fitted.continue_with("nuts", jax.random.key(0), **options)
