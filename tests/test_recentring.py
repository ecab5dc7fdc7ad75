"""Hierarchies in coordinates between centred and non-centred: the same posterior, the sites of the
model, coordinates that fit the data.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import vi_jax as vi

Y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STDERRS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools():
    """Eight schools (Rubin 1981), as one writes them: centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, STDERRS), obs=Y)
    numpyro.deterministic("best", theta.max())


def loop():
    """A walk that is written as a loop: a location is a moved site."""
    sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    x = 0.0
    for t in range(3):
        x = numpyro.sample(f"x{t}", dist.Normal(x, sigma))
        numpyro.sample(f"y{t}", dist.Normal(x, 1.0), obs=Y[t] / 10)


def walk():
    sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    x = numpyro.sample("x", dist.GaussianRandomWalk(sigma, 4))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=Y[:4] / 10)


def heavy():
    """Students' t of two axes, an event of one of them, and a scale for each row."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([2]).to_event(1))
    b = numpyro.sample("b", dist.StudentT(4.0, 0.0, scale[:, None]).expand([2, 3]).to_event(1))
    numpyro.sample("y", dist.Normal(b.sum(1), 1.0), obs=Y[:2] / 10)


MODELS = {
    "schools": (schools, {"theta": np.linspace(0.0, 1.0, 8)}),
    "loop": (loop, {"x0": 0.3, "x1": 0.0, "x2": 0.8}),
    "walk": (walk, {"x": 0.4}),
    "heavy": (heavy, {"b": np.linspace(0.0, 1.0, 6).reshape(2, 3)}),
}


def moved(name):
    """The target as the model is written, and one in other coordinates."""
    model, shares = MODELS[name]
    target = vi.targets.from_numpyro(model)
    return target, target.recentring.at(shares, target)


@pytest.mark.cases(rest="slow", integration=["loop", "schools"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_same_posterior_by_the_change_of_variables(name, x64):
    target, other = moved(name)
    way = other.centring
    assert set(target.recentring.names) == set(MODELS[name][1])
    v = 0.7 * jax.random.normal(jax.random.key(1), (target.size,))

    def expected(v):
        jacobian = jax.jacfwd(way.to_model)(v)
        return target.log_density(way.to_model(v)) + jnp.linalg.slogdet(jacobian)[1]

    (want, want_slope), (got, slope) = (
        jax.jit(jax.value_and_grad(f))(v) for f in (expected, other.log_density)
    )
    np.testing.assert_allclose(got, want, rtol=1e-10)
    np.testing.assert_allclose(slope, want_slope, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(other.unconstrain(other.constrain(v)), v, rtol=1e-9, atol=1e-12)
    u = way.to_model(v)
    back, log_det = way.from_model(u)
    np.testing.assert_allclose(back, v, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det, target.log_density(u) - got, rtol=1e-8, atol=1e-9)
    sites = (other.constrain(v), target.constrain(u))
    assert set(sites[0]) == set(sites[1])
    for site, value in sites[0].items():
        np.testing.assert_allclose(value, sites[1][site], rtol=1e-9)


def test_digits_survive_in_the_neck_of_a_funnel():
    """x less its location is 0 in float32 where the scale is small; v has its density still."""
    _, other = moved("schools")
    v = jnp.ones(other.size).at[list(other.names).index("tau")].set(-18.0)  # tau = 1.5e-8
    slope = jax.jit(jax.grad(other.log_density))(v)
    with jax.enable_x64(True):
        _, exact = moved("schools")
        want = jax.jit(jax.grad(exact.log_density))(jnp.asarray(v, jnp.float64))
    np.testing.assert_allclose(slope, want, rtol=1e-4, atol=1e-4)


@pytest.mark.cases(rest=None, integration=["0.5"])
@pytest.mark.parametrize("tau", [0.5, 20.0])
def test_shares_are_those_of_what_the_data_say(tau, x64):
    """t tau^2 / (1 + t tau^2) for data of precision t."""
    target = vi.targets.from_numpyro(schools)
    centre = target.unconstrain({"mu": 4.0, "tau": tau, "theta": Y})
    guide = dist.MultivariateNormal(centre, scale_tril=1e-6 * jnp.eye(target.size))
    shares = target.recentring.shares(guide, jax.random.key(0))
    information = (tau / STDERRS) ** 2
    np.testing.assert_allclose(shares["theta"], information / (1 + information), rtol=1e-4)


def test_a_scale_that_no_latent_changes_makes_no_hierarchy():
    def plain():
        mu = numpyro.sample("mu", dist.Normal(jnp.zeros(2), jnp.ones(2)))
        x = numpyro.sample("x", dist.Normal(mu, 2.0 * jnp.ones(2)))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=Y[:2])

    target = vi.targets.from_numpyro(plain)
    guide = dist.MultivariateNormal(jnp.zeros(4), jnp.eye(4))
    found = target.recentring
    assert found is None or found.shares(guide, jax.random.key(0)) == {}


def fixed():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=Y[:3])


def masked():
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    x = numpyro.sample("x", dist.Normal(0.0, tau).expand([3]).mask(jnp.array([True, False, True])))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=Y[:3])


def scanned():
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x, tau))
        return x, numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    scan(step, 0.0, Y[:3])


def scaled():
    """The Jacobian of a site whose log density is scaled is not scaled."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.handlers.scale(scale=0.9):
        x = numpyro.sample("x", dist.Normal(0.0, tau))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=1.0)


class Own(dist.Normal):
    """A class of the user's own, whose density need not be a normal one."""


def own():
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    x = numpyro.sample("x", Own(0.0, tau))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=1.0)


@pytest.mark.parametrize("model", [fixed, masked, scanned, scaled, own])
def test_other_sites_are_left_as_they_are(model):
    assert vi.targets.from_numpyro(model).recentring is None


def by_quadrature():
    """log p(y), E[mu], E[tau] of eight schools, theta integrated out."""
    with jax.enable_x64(True):
        mu = jnp.linspace(-30.0, 40.0, 1401)[:, None]
        log_tau = jnp.linspace(-12.0, 7.0, 1901)
        tau = jnp.exp(log_tau)
        log_p = dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau) + log_tau
        for y, stderr in zip(Y, STDERRS, strict=True):
            log_p += dist.Normal(mu, jnp.hypot(tau, stderr)).log_prob(y)
        cell = jnp.log(mu[1, 0] - mu[0, 0]) + jnp.log(log_tau[1] - log_tau[0])
        weights = jax.nn.softmax(log_p.ravel()).reshape(log_p.shape)
        evidence = jax.nn.logsumexp(log_p) + cell
        return float(evidence), float((weights * mu).sum()), float((weights * tau).sum())


@pytest.fixture(scope="module")
def fitted():
    """Eight schools by the defaults."""
    target = vi.targets.from_numpyro(schools)
    return target, vi.fit(jax.random.key(0), target)


@pytest.mark.integration
def test_a_centred_hierarchy_is_fitted_in_other_coordinates_and_read_in_its_own(fitted):
    target, result = fitted
    assert "theta" in result.why
    assert "non-centred" in result.why
    d = result.diagnostics
    assert d.trusted
    evidence, mean_mu, mean_tau = by_quadrature()
    assert abs(d.log_evidence - evidence) < 4 * d.log_evidence_stderr
    moments = result.moments()
    for name, mean in (("mu", mean_mu), ("tau", mean_tau)):
        stderr = moments["sd"][name] / d.effective**0.5
        assert abs(moments["mean"][name] - mean) < 5 * stderr
    assert result.predictive(jax.random.key(1), num_draws=10)["y"].shape == (10, 8)
    assert result.details.names == target.names


@pytest.mark.integration
def test_its_guide_is_over_the_latents_of_the_target(fitted):
    """So that what takes a target and a guide takes these two."""
    target, result = fitted
    u = result.guide.sample(jax.random.key(3), (4000,))
    log_w = jax.vmap(target.log_density)(u) - result.guide.log_prob(u)
    evidence = float(jax.nn.logsumexp(log_w) - np.log(len(u)))
    assert abs(evidence - by_quadrature()[0]) < 0.2
    drawn = result.sample(jax.random.key(3), 4000)
    tau = jnp.exp(u[:, target.names.index("tau")])
    np.testing.assert_allclose(jnp.sort(drawn["tau"]), jnp.sort(tau), rtol=1e-3)
    rows = jax.vmap(target.constrain)(result.weighted.u)["tau"]
    weighted = jnp.sum(jnp.exp(result.weighted.log_weights) * rows)
    np.testing.assert_allclose(weighted, result.moments()["mean"]["tau"], rtol=1e-4)


@pytest.mark.integration
def test_it_is_the_prior_of_another_model_which_sees_nothing_of_its_own(fitted):
    target, result = fitted

    def later():
        z = result.as_prior()
        u = result.weighted.u[0]
        numpyro.factor("again", 0.0 * target.log_density(u) * target.constrain(u)["tau"])
        numpyro.sample("new", dist.Normal(z["mu"], 1.0), obs=1.0)

    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(later).get_trace()
    assert set(trace) == {"earlier", "mu", "tau", "theta", "again", "new"}
    assert vi.targets.from_numpyro(later).size == target.size


@pytest.mark.integration
def test_a_folder_holds_it_and_the_model_is_asked_for_where_it_is_needed(fitted, tmp_path):
    target, result = fitted
    result.save(tmp_path)
    bare = vi.load_result(tmp_path)
    whole = vi.load_result(tmp_path, target)
    for loaded in (bare, whole):
        assert str(loaded) == str(result)
        np.testing.assert_array_equal(
            loaded.moments()["mean"]["theta"], result.moments()["mean"]["theta"]
        )
    with pytest.raises(ValueError, match=r"load_result\(folder, target\)"):
        bare.sample(jax.random.key(2), 5)
    drawn = [each.sample(jax.random.key(2), 5)["theta"] for each in (whole, result)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.integration
def test_what_the_data_know_well_stays_centred():
    def precise():
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfNormal(5.0))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, 0.01 * STDERRS), obs=Y)

    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(precise))
    assert "centred" not in result.why
    assert result.diagnostics.trusted
