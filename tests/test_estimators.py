"""What estimators take and refuse: guides of any pytree, densities that are scalars, draws that
carry a gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import all_finite, assert_mean, bounds, keys, members, valid_bounds

import vi_jax as vi

ESTIMATORS = members(vi.estimators)
# Those for guides of one kind are held to the exact gradients of that kind in test_matrix.
ANY_GUIDE = {name for name, one in ESTIMATORS.items() if not hasattr(one, "guides")} - {
    "enumerated"
}


def log_joint(z):
    return -0.5 * (z**2).sum() - 1.5


def gaussian(num_latents=3):
    return dist.Normal(jnp.full(num_latents, 0.5), jnp.full(num_latents, 0.8)).to_event(1)


class Guide(NamedTuple):
    """Two latents of unlike shapes: a [2] and b []."""

    loc: dict
    log_scale: jax.Array

    def sample(self, key, sample_shape=()):
        key_a, key_b = jax.random.split(key)
        noise = {
            "a": jax.random.normal(key_a, (*sample_shape, 2)),
            "b": jax.random.normal(key_b, sample_shape),
        }
        return jax.tree.map(lambda loc, eps: loc + jnp.exp(self.log_scale) * eps, self.loc, noise)

    def log_prob(self, value):
        terms = jax.tree.map(
            lambda loc, z: dist.Normal(loc, jnp.exp(self.log_scale)).log_prob(z).sum(),
            self.loc,
            value,
        )
        return terms["a"] + terms["b"]


def two_latents(loc=0.0):
    return Guide({"a": jnp.full(2, loc), "b": jnp.asarray(loc)}, jnp.zeros(()))


@pytest.fixture(params=sorted(ANY_GUIDE))
def estimate(request):
    """An estimator that takes any continuous guide, with a bound that it takes."""
    estimator = ESTIMATORS[request.param]
    valid = valid_bounds(estimator, bounds())
    bound = bounds()["iwae" if "iwae" in valid else valid[0]]

    def run(key, log_joint, q, num_samples=4):
        return estimator(key, bound, log_joint, q, num_samples=num_samples)

    return run


def discrete_guides():
    half = dist.Categorical(jnp.full(2, 0.5))
    return {
        "bernoulli": dist.Bernoulli(0.5),
        "bernoulli vector": dist.Bernoulli(jnp.full(3, 0.5)).to_event(1),
        "ours": vi.distributions.Bernoulli(jnp.zeros(3)).to_event(1),
        "expanded": dist.Bernoulli(0.5).expand([3]).to_event(1),
        "categorical": dist.Categorical(logits=jnp.zeros(3)),
        "poisson": dist.Poisson(1.0),
        "mixture": dist.MixtureSameFamily(half, dist.Normal(jnp.zeros(2), jnp.ones(2))),
        "discretised": vi.distributions.DiscretizedLogistic(jnp.zeros(()), jnp.ones(())),
    }


@pytest.mark.parametrize("kind", sorted(discrete_guides()))
def test_guides_whose_draws_carry_no_gradient_are_refused(kind):
    q = discrete_guides()[kind]
    with pytest.raises(ValueError, match="not reparameterised") as error:
        vi.estimators.reparam(jax.random.key(0), vi.bounds.elbo, log_joint, q, num_samples=2)
    assert type(q).__name__ in str(error.value)
    with pytest.raises(ValueError, match="not reparameterised"):
        vi.analytic_elbo(jax.random.key(0), log_joint, q, q)


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_a_number_of_draws_that_is_none_is_refused(estimate, num_samples):
    with pytest.raises(ValueError, match=r"at least [12]") as error:
        estimate(jax.random.key(0), log_joint, gaussian(), num_samples)
    assert repr(num_samples) in str(error.value)


def test_a_batch_of_guides_is_refused_with_what_to_do(estimate):
    q = dist.Normal(jnp.zeros(3), jnp.ones(3))  # three guides of one latent, not one guide of three
    with pytest.raises(ValueError, match="to_event") as error:
        estimate(jax.random.key(0), log_joint, q)
    assert "(3,)" in str(error.value)
    with pytest.raises(ValueError, match="to_event"):
        vi.analytic_elbo(jax.random.key(0), log_joint, q, q)


def test_a_log_joint_that_is_no_scalar_is_refused_with_what_to_do(estimate):
    with pytest.raises(ValueError, match="vmap over examples") as error:
        estimate(jax.random.key(0), lambda z: -(z**2), gaussian())
    assert "(3,)" in str(error.value)
    with pytest.raises(ValueError, match="vmap over examples"):
        estimate(jax.random.key(0), lambda z: -(z**2).sum(keepdims=True), gaussian())
    with pytest.raises(ValueError, match="vmap over examples"):
        vi.analytic_elbo(jax.random.key(0), lambda z: -(z**2), gaussian(), gaussian())


@pytest.mark.cases(rest=None, slow=["piwae"])
@pytest.mark.integration
def test_a_guide_may_be_any_pytree(estimate):
    def joint(z):
        return -0.5 * (z["a"] ** 2).sum() - 0.5 * z["b"] ** 2

    value, gradient = jax.value_and_grad(lambda q: estimate(jax.random.key(0), joint, q))(
        two_latents(0.5)
    )
    assert jnp.shape(value) == ()
    assert all_finite(gradient)
    assert isinstance(two_latents(), vi.Guide)


@pytest.mark.cases(rest=None, integration=["dreg", "piwae"])
def test_a_dict_guide_that_is_the_posterior_gives_the_evidence(estimate):
    def joint(z):
        return (
            dist.Normal(0.0, 1.0).log_prob(z["a"]).sum()
            + dist.Normal(0.0, 1.0).log_prob(z["b"])
            - 2.5
        )

    for seed in range(3):
        np.testing.assert_allclose(
            estimate(jax.random.key(seed), joint, two_latents()), -2.5, rtol=1e-6
        )


def test_the_draws_depend_on_the_key_alone(estimate):
    values = [float(estimate(jax.random.key(seed), log_joint, gaussian())) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_jit_gives_the_same(estimate):
    jitted = jax.jit(lambda key: estimate(key, log_joint, gaussian()))
    np.testing.assert_allclose(
        jitted(jax.random.key(3)), estimate(jax.random.key(3), log_joint, gaussian()), rtol=1e-5
    )


@pytest.mark.cases(rest=None, slow=["piwae"])
@pytest.mark.integration
def test_vmap_over_examples_is_a_loop(estimate):
    def one(key, x):
        q = dist.Normal(jnp.full(3, x), jnp.ones(3)).to_event(1)
        return estimate(key, lambda z: log_joint(z - x), q)

    x = jnp.array([0.0, 0.3, -2.0])
    batch = jax.vmap(one)(keys(0, 3), x)
    loop = [one(key, x_i) for key, x_i in zip(keys(0, 3), x, strict=True)]
    np.testing.assert_allclose(batch, jnp.stack(loop), rtol=1e-5)


@pytest.mark.integration
def test_more_draws_lower_the_variance_by_as_much():
    def elbo(num_samples):
        return lambda key: vi.estimators.reparam(
            key, vi.bounds.elbo, log_joint, gaussian(), num_samples=num_samples
        )

    one, sixteen = (np.asarray(jax.vmap(elbo(k))(keys(k, 4000))) for k in (1, 16))
    # 16, within 5 standard errors of a ratio of two such variances
    assert 13 < one.var() / sixteen.var() < 19.5
    assert_mean(one, sixteen.astype(np.float64).mean(), sigmas=6)


def test_frozen_leaves_carry_no_gradient():
    gradient = jax.grad(lambda q: vi.freeze(q).log_prob(jnp.zeros(3)))(gaussian())
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))
    gradient = jax.grad(lambda z: vi.freeze(gaussian()).log_prob(z))(jnp.zeros(3))
    np.testing.assert_allclose(gradient, jnp.full(3, 0.5 / 0.64), rtol=1e-6)
