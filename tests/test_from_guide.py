"""Guides as NumPyro distributions: a posterior is the prior of the next experiment."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import tree_equal
from numpyro import handlers
from numpyro.infer import MCMC, NUTS

import vi_jax as vi
from vi_jax import families
from vi_jax.distributions import from_guide
from vi_jax.families import constrained

FIRST = jnp.array([1.5, 0.2, 2.3, 1.1])
SECOND = jnp.array([0.4, 1.7, 0.9])
NOISE = 0.8
PRIOR = 2.0


def known(y):
    """A normal mean under known noise: its posterior is Gaussian."""
    mean = numpyro.sample("mean", dist.Normal(0.0, PRIOR))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mean, NOISE), obs=y)


def exact(y):
    """Mean and standard deviation of the posterior of all data."""
    precision = 1 / PRIOR**2 + len(y) / NOISE**2
    return float(y.sum()) / NOISE**2 / precision, precision**-0.5


@pytest.fixture(scope="module")
def first():
    target = vi.targets.from_numpyro(known, FIRST)
    return vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=100)


@pytest.fixture(scope="module")
def following(first):
    """The model of the second experiment, its prior the posterior of the first."""

    def model(y):
        mean = first.as_prior()["mean"]
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(mean, NOISE), obs=y)

    return model


def made(name, size=3):
    family = getattr(families, name)(size)
    return family.guide(family.init(jax.random.key(1)))


@pytest.mark.parametrize(
    "name",
    [
        "planar",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mean_field", "low_rank", "student_t", "mixture")
        ),
    ],
)
def test_samples_and_densities_are_those_of_the_guide(name):
    q = made(name)
    d = from_guide(q)
    assert isinstance(d, dist.Distribution)
    assert d.event_shape == (3,)
    assert d.batch_shape == ()
    z = d.sample(jax.random.key(2), (4,))
    np.testing.assert_array_equal(z, q.sample(jax.random.key(2), (4,)))
    np.testing.assert_array_equal(d.log_prob(z), q.log_prob(z))
    assert bool(jnp.all(d.support(z)))
    assert from_guide(d) is d


@pytest.mark.integration
def test_it_is_a_pytree_and_a_site():
    d = from_guide(made("planar"))
    back = jax.tree.unflatten(jax.tree.structure(d), jax.tree.leaves(d))
    z = d.sample(jax.random.key(0))
    assert back.event_shape == (3,)
    assert tree_equal(back.log_prob(z), d.log_prob(z))
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        numpyro.sample("theta", d)
    assert trace["theta"]["value"].shape == (3,)
    lifted = jax.vmap(lambda loc: from_guide(made("planar")).log_prob(loc))(jnp.zeros((2, 3)))
    assert lifted.shape == (2,)


def test_what_is_no_guide_over_an_array_is_refused():
    with pytest.raises(TypeError, match="expects a guide, with sample and log_prob; got int"):
        from_guide(3)
    family = constrained({"p": (dist.constraints.simplex, (3,))})
    with pytest.raises(TypeError, match="this one is over the pytree PyTreeDef"):
        from_guide(family.guide(family.init(jax.random.key(0))))


@pytest.mark.integration
def test_a_posterior_as_prior_is_the_posterior_of_both(first, following):
    target = vi.targets.from_numpyro(following, SECOND)
    assert target.names == ("earlier[0]",)
    both = vi.fit(jax.random.key(1), target, vi.methods.laplace(), num_draws=400)
    mean, sd = exact(jnp.concatenate([FIRST, SECOND]))
    np.testing.assert_allclose(both.guide.mean[0], mean, rtol=1e-4)
    np.testing.assert_allclose(both.guide.covariance_matrix[0, 0] ** 0.5, sd, rtol=1e-3)
    # the evidence of both together is the product of what was said in turn
    joint = vi.targets.from_numpyro(known, jnp.concatenate([FIRST, SECOND]))
    normal = dist.Normal(mean, sd)
    whole = joint.log_density(jnp.array([mean])) - normal.log_prob(mean)
    in_turn = first.diagnostics.log_evidence + both.diagnostics.log_evidence
    np.testing.assert_allclose(in_turn, whole, rtol=1e-4)
    assert both.sample(jax.random.key(2), 5)["mean"].shape == (5,)


@pytest.mark.integration
def test_nuts_takes_it_as_a_prior(following):
    chains = MCMC(NUTS(following), num_warmup=200, num_samples=2000, progress_bar=False)
    with jax.debug_key_reuse(False):
        chains.run(jax.random.key(3), SECOND)
    draws = np.asarray(chains.get_samples()["mean"])
    mean, sd = exact(jnp.concatenate([FIRST, SECOND]))
    assert abs(draws.mean() - mean) < 0.15 * sd
    np.testing.assert_allclose(draws.std(), sd, rtol=0.12)


@pytest.mark.slow
def test_a_flow_as_prior_of_nothing_is_itself():
    """Fitted with no data, the posterior is the prior."""
    family = families.planar(2, num_layers=2)
    q = family.guide(family.init(jax.random.key(4)))

    def model():
        numpyro.sample("theta", from_guide(q))

    result = vi.fit(jax.random.key(0), vi.targets.from_numpyro(model), vi.methods.laplace())
    moments = result.moments()
    draws = np.asarray(q.sample(jax.random.key(1), (20_000,)))
    assert np.all(np.abs(moments["mean"]["theta"] - draws.mean(0)) < 0.1 * draws.std(0))
    assert abs(result.diagnostics.log_evidence) < 5 * result.diagnostics.log_evidence_stderr + 1e-3


@pytest.mark.integration
def test_unknown_supports_are_refused(first):
    result = first.__class__(
        **{
            **{name: getattr(first, name) for name in first.__dataclass_fields__},
            "target": first.target._replace(latents=None),
        }
    )
    with pytest.raises(ValueError, match="as_prior needs latents whose supports are known"):
        result.as_prior()
