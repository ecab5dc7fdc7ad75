"""What a result hands to xarray, ArviZ, NumPyro and BlackJAX."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp

import vi_jax as vi
from vi_jax import targets
from vi_jax.fitting.warm_start import begin_chains

DATA = np.array([1.2, 0.3, -0.4, 2.1, 1.9, 0.8])


def scaled(y):
    """Sites of two supports, one of them a vector, in an order that is not the alphabet's."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    numpyro.sample("b", dist.LogNormal(0.0, 0.5))
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("rows", 6):
        numpyro.sample("y", dist.Normal(mean[0] + mean[1], scale), obs=y)


@pytest.fixture(scope="module")
def fitted():
    target = targets.from_numpyro(scaled, jnp.asarray(DATA))
    return vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=500)


@pytest.fixture(scope="module")
def tree(fitted):
    pytest.importorskip("xarray")
    return fitted.to_xarray(jax.random.key(1), 400, predictive=True)


@pytest.mark.integration
def test_groups_have_names_sizes_and_attributes(fitted, tree):
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "mean_dim_0")
    assert tree["posterior"]["scale"].shape == (1, 400)
    assert tree["posterior"]["draw"].values[-1] == 399
    assert tree["posterior_predictive"]["y"].shape == (1, 400, 6)
    assert tree["observed_data"]["y"].dims == ("y_dim_0",)
    np.testing.assert_allclose(tree["observed_data"]["y"], DATA, rtol=1e-6)
    assert tree.attrs["verdict"] == fitted.diagnostics.verdict
    assert tree.attrs["method"] == "laplace"


@pytest.mark.integration
def test_log_likelihoods_are_those_of_the_draws(tree):
    z = tree["posterior"]
    scale = z["scale"].values[0]
    mean = z["mean"].values[0].sum(-1)
    expected = dist.Normal(mean[:, None], scale[:, None]).log_prob(DATA)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0], expected, rtol=2e-4)


@pytest.mark.integration
def test_arviz_has_the_same_numbers_and_its_loo_is_that_of_the_formula(fitted, tree):
    arviz = pytest.importorskip("arviz")
    data = fitted.to_arviz(jax.random.key(1), 400, predictive=True)
    for group in ("posterior", "log_likelihood", "posterior_predictive", "observed_data"):
        for name, values in tree[group].to_dataset().data_vars.items():
            np.testing.assert_array_equal(data[group][name].values, values.values)
    loo = arviz.loo(data, pointwise=True)
    log_lik = tree["log_likelihood"]["y"].values[0].astype(np.float64)  # [S, N]
    log_w = np.asarray(jax.vmap(lambda w: vi.diagnostics.psis(w).log_weights, 1, 1)(-log_lik))
    expected = logsumexp(log_w + log_lik, axis=0) - logsumexp(log_w, axis=0)
    found = getattr(loo, "elpd_loo", None)
    found = loo.elpd if found is None else found
    np.testing.assert_allclose(found, expected.sum(), rtol=2e-3)


@pytest.mark.integration
def test_a_density_alone_has_no_replicates():
    target = targets.from_log_density(lambda z: -0.5 * jnp.sum(z**2), jnp.zeros(2))
    result = vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=50)
    with pytest.raises(ValueError, match="predictive wants the target of a NumPyro model"):
        result.to_xarray(predictive=True)
    u = jnp.arange(12.0).reshape(4, 3)
    with pytest.raises(ValueError, match="5 chains start from as many draws; got 4"):
        begin_chains(target, u, jax.random.key(0), 5)
    with pytest.raises(ValueError, match="num_chains of at least 1; got 0"):
        begin_chains(target, u, jax.random.key(0), 0)


def run(kernel, positions):
    chains = MCMC(
        kernel,
        num_warmup=100,
        num_samples=1000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.debug_key_reuse(False):
        chains.run(jax.random.key(2), init_params=positions)
    return chains.get_samples()


def assert_near(draws, fitted):
    """Within a fifth of a standard deviation of the importance-weighted moments."""
    moments = fitted.moments()
    for name in ("mean", "scale"):
        gap = np.abs(np.asarray(draws[name]).mean(0) - moments["mean"][name])
        assert np.all(gap < 0.2 * moments["sd"][name])


@pytest.mark.slow
def test_numpyro_starts_from_the_density_and_from_the_model(fitted):
    start = fitted.warm_start(jax.random.key(1), 2)
    assert start.positions.shape == (2, 4)
    assert start.inverse_mass_matrix.shape == (4, 4)
    u = run(NUTS(potential_fn=start.potential, **start.options), start.positions)
    assert_near(jax.vmap(fitted.target.constrain)(u), fitted)


@pytest.mark.parametrize("is_dense", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.integration
def test_numpyro_starts_by_site(fitted, is_dense):
    start = fitted.warm_start(jax.random.key(1), 2)
    if not is_dense:
        start = start._replace(inverse_mass_matrix=jnp.diag(start.inverse_mass_matrix))
    sites = jax.vmap(fitted.target.constrain)(start.positions)
    np.testing.assert_allclose(start.positions_by_site["mean"], sites["mean"])
    np.testing.assert_allclose(jnp.exp(start.positions_by_site["scale"]), sites["scale"], rtol=1e-5)
    kernel = NUTS(scaled, adapt_mass_matrix=False, **start.options_by_site)
    chains = MCMC(kernel, num_warmup=100, num_samples=500, progress_bar=False)
    one = {name: values[0] for name, values in start.positions_by_site.items()}
    with jax.debug_key_reuse(False):
        chains.run(jax.random.key(2), jnp.asarray(DATA), init_params=one)
    assert_near(chains.get_samples(), fitted)
    # what the sampler holds for a site is the variance of that site
    ((block, matrix),) = chains.last_state.adapt_state.inverse_mass_matrix.items()
    latents = fitted.target.names
    names = [name for site in block for name in latents if name.split("[")[0] == site]
    variances = np.asarray(fitted.weighted.u).var(0)
    held = np.diag(matrix) if matrix.ndim == 2 else matrix
    np.testing.assert_allclose(held, variances[[latents.index(name) for name in names]], rtol=1e-3)


@pytest.mark.integration
def test_blackjax_starts(fitted):
    blackjax = pytest.importorskip("blackjax")
    start = fitted.warm_start(jax.random.key(1), 2)
    sampler = blackjax.nuts(start.log_density, 0.6, start.inverse_mass_matrix)

    def step(state, key):
        state, _ = sampler.step(key, state)
        return state, state.position

    keys = jax.random.split(jax.random.key(3), 1500)
    with jax.debug_key_reuse(False):
        _, u = jax.lax.scan(step, sampler.init(start.positions[0]), keys)
    assert_near(jax.vmap(fitted.target.constrain)(u), fitted)
