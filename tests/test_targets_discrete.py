"""Discrete latents of NumPyro models: summed out by its own enumeration, against sums by hand."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.targets import TargetError
from vi_jax.targets.enumeration import MARK

RNG = np.random.default_rng(0)
Y = np.concatenate([RNG.normal(-2, 1, 12), RNG.normal(2, 1, 8)])
PARALLEL = {"enumerate": "parallel"}


def mixture(y, mark=PARALLEL):
    w = numpyro.sample("w", dist.Beta(2.0, 2.0))
    ordered = dist.transforms.OrderedTransform()
    base = dist.Normal(0, 3).expand([2]).to_event(1)
    mu = numpyro.sample("mu", dist.TransformedDistribution(base, ordered))
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(w), infer=mark)
        numpyro.deterministic("at", mu[z])
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def by_hand(y):
    """The same, the sum written out."""
    w = numpyro.sample("w", dist.Beta(2.0, 2.0))
    ordered = dist.transforms.OrderedTransform()
    base = dist.Normal(0, 3).expand([2]).to_event(1)
    mu = numpyro.sample("mu", dist.TransformedDistribution(base, ordered))
    both = jnp.stack(
        [
            jnp.log1p(-w) + dist.Normal(mu[0], 1.0).log_prob(y),
            jnp.log(w) + dist.Normal(mu[1], 1.0).log_prob(y),
        ]
    )
    numpyro.factor("y", jax.nn.logsumexp(both, axis=0).sum())


@pytest.fixture(scope="module")
def target():
    pytest.importorskip("funsor")
    return vi.targets.from_numpyro(mixture, Y)


@pytest.mark.integration
def test_the_density_and_its_gradient_are_those_of_the_sum_by_hand(target):
    other = vi.targets.from_numpyro(by_hand, Y)
    assert target.names == other.names
    u = jnp.array([0.3, -1.5, 0.9])
    value, slope = jax.jit(jax.value_and_grad(target.log_density))(u)
    expected, expected_slope = jax.jit(jax.value_and_grad(other.log_density))(u)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-4, atol=1e-4)
    assert set(target.constrain(u)) == {"w", "mu"}  # `at` depends on what is summed out


@pytest.mark.integration
def test_probabilities_are_those_of_bayes_rule(target):
    u = jnp.array([0.3, -1.5, 0.9])
    z = target.constrain(u)
    odds = jax.scipy.special.logit(z["w"])
    odds = (
        odds + dist.Normal(z["mu"][1], 1.0).log_prob(Y) - dist.Normal(z["mu"][0], 1.0).log_prob(Y)
    )
    found = jax.jit(target.discrete)(u)["z"]
    assert found.shape == (20, 2)
    np.testing.assert_allclose(found[:, 1], jax.nn.sigmoid(odds), rtol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)


@pytest.mark.integration
def test_a_fit_gives_the_probabilities_of_the_components(target):
    result = vi.fit(jax.random.key(0), target, num_draws=500)
    assert result.diagnostics.trusted
    found = result.discrete()["z"]
    assert np.all(found[:12, 0].mean() > 0.9)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-4)
    assert abs(found[:, 1].mean() - result.moments()["mean"]["w"]) < 0.1
    plain = vi.targets.from_log_density(lambda u: -0.5 * jnp.sum(u**2), 2)
    assert vi.fit(jax.random.key(0), plain, vi.methods.laplace(), num_draws=50).discrete() == {}


def chain():
    """Two states in turn, without a plate."""
    stay = numpyro.sample("stay", dist.Beta(3.0, 1.0))
    state = numpyro.sample("state0", dist.Bernoulli(0.5), infer=PARALLEL)
    numpyro.sample("y0", dist.Normal(2.0 * state, 1.0), obs=0.1)
    state = numpyro.sample(
        "state1", dist.Bernoulli(jnp.where(state == 1, stay, 1 - stay)), infer=PARALLEL
    )
    numpyro.sample("y1", dist.Normal(2.0 * state, 1.0), obs=1.7)


@pytest.mark.integration
def test_sites_that_depend_on_each_other_are_summed_together():
    pytest.importorskip("funsor")
    target = vi.targets.from_numpyro(chain)
    u = jnp.array([0.4])
    stay = float(target.constrain(u)["stay"])
    joint = np.zeros((2, 2))
    for first in (0, 1):
        for second in (0, 1):
            up = stay if first else 1 - stay
            likelihood = np.exp(-0.5 * (0.1 - 2 * first) ** 2 - 0.5 * (1.7 - 2 * second) ** 2)
            joint[first, second] = 0.5 * (up if second else 1 - up) * likelihood / (2 * np.pi)
    prior = dist.Beta(3.0, 1.0).log_prob(stay) + np.log(stay * (1 - stay))
    np.testing.assert_allclose(target.log_density(u), prior + np.log(joint.sum()), rtol=1e-4)
    found = target.discrete(u)
    np.testing.assert_allclose(found["state0"], joint.sum(1) / joint.sum(), rtol=1e-4)
    np.testing.assert_allclose(found["state1"], joint.sum(0) / joint.sum(), rtol=1e-4)


def test_what_is_not_marked_or_not_finite_is_refused_by_its_site(monkeypatch):
    with pytest.raises(TargetError, match="the site 'z' is discrete") as raised:
        vi.targets.from_numpyro(lambda: mixture(Y, mark={}))
    assert f"Mark it to be summed out, numpyro.sample(..., {MARK})" in str(raised.value)

    def counts():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("n", dist.Poisson(3.0), infer=PARALLEL)

    with pytest.raises(TargetError, match="'n' cannot be enumerated: Poisson has no finite list"):
        vi.targets.from_numpyro(counts)
    monkeypatch.setitem(sys.modules, "numpyro.contrib.funsor", None)
    with pytest.raises(TargetError, match="is not installed: pip install funsor"):
        vi.targets.from_numpyro(mixture, Y)


def test_minibatches_and_sums_do_not_go_together():
    pytest.importorskip("funsor")

    def model():
        w = numpyro.sample("w", dist.Beta(2.0, 2.0))
        with numpyro.plate("n", 20, subsample_size=5) as rows:
            z = numpyro.sample("z", dist.Bernoulli(w), infer=PARALLEL)
            numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.asarray(Y)[rows])

    with pytest.raises(TargetError, match="'z' is summed out, which needs all rows"):
        vi.targets.from_numpyro(model)
