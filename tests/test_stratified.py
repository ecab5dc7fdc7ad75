"""The stratified estimator: exact sums over a mixture's components, and what it is at one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys

import vi_jax as vi

S = 3
PARAMS = {
    "logits": jnp.array([0.2, -0.2, 0.1]),
    "loc": jnp.array([[-1.0], [0.4], [1.5]]),
    "log_scale": jnp.array([[-1.5], [-1.2], [-1.6]]),
}
BOUNDS = {
    "elbo": vi.bounds.elbo,
    "iwae": vi.bounds.iwae,
    "miwae": functools.partial(vi.bounds.miwae, num_groups=2),
}


def log_joint(z):
    """Two modes."""
    return dist.Normal(0.0, 1.5).log_prob(z[0]) + dist.Normal(z[0] ** 2, 0.5).log_prob(1.0)


def guide(params, num_components=S):
    return vi.families.mixture(1, num_components=num_components).guide(params)


def of_one(params, number=0):
    return {name: leaf[number : number + 1] for name, leaf in params.items()}


def by_quadrature(params):
    """sum_s pi_s E_{q_s}[log p(x, z) - log q(z)], at 64 nodes of each component."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    q = guide(params)
    z = params["loc"] + jnp.exp(params["log_scale"]) * jnp.asarray(nodes, jnp.float32)  # [S, 64]
    log_w = jax.vmap(jax.vmap(lambda z: log_joint(z[None]) - q.log_prob(z[None])))(z)
    each = log_w @ jnp.asarray(weights / weights.sum(), jnp.float32)
    return jax.nn.softmax(params["logits"]) @ each


@functools.cache
def values_and_gradients(bound="elbo", num_samples=1, num=4_000):
    def value(params, key):
        return vi.estimators.stratified(
            key, BOUNDS[bound], log_joint, guide(params), num_samples=num_samples
        )

    return jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0)))(PARAMS, keys(1, num))


@pytest.mark.integration
def test_it_is_the_sum_over_components_and_so_is_its_gradient():
    expected, slopes = jax.jit(jax.value_and_grad(by_quadrature))(PARAMS)
    values, found = values_and_gradients()
    assert_mean(np.asarray(values, np.float64), expected)
    for name, slope in slopes.items():
        assert_mean(np.asarray(found[name], np.float64), slope)
        assert np.abs(slope).min() > 1e-3


@pytest.mark.integration
def test_each_component_is_sampled_so_that_there_is_less_noise_than_by_drawn_components():
    (values, found) = values_and_gradients()

    def drawn(params, key):
        return vi.estimators.reparam(key, vi.bounds.elbo, log_joint, guide(params), num_samples=S)

    (others, theirs) = jax.jit(jax.vmap(jax.value_and_grad(drawn), (None, 0)))(
        PARAMS, keys(2, 4_000)
    )
    both = np.hypot(values.std(), others.std()) / 4_000**0.5
    assert abs(values.mean() - others.mean()) < 5 * both
    assert values.std() < 0.8 * others.std()
    assert found["loc"].std(0).sum() < theirs["loc"].std(0).sum()


@pytest.mark.integration
def test_of_one_component_it_is_the_reparameterised_bound():
    one = of_one(PARAMS)
    key = jax.random.key(3)

    def mixture(params):
        estimate = functools.partial(vi.estimators.stratified, key, num_samples=4)
        q = guide(params, 1)
        return jnp.stack([estimate(bound, log_joint, q) for bound in BOUNDS.values()])

    def plain(params):
        q = dist.Normal(params["loc"][0], jnp.exp(params["log_scale"][0])).to_event(1)
        estimate = functools.partial(vi.estimators.reparam, key, num_samples=4)
        return jnp.stack([estimate(bound, log_joint, q) for bound in BOUNDS.values()])

    with jax.debug_key_reuse(False):
        np.testing.assert_allclose(jax.jit(mixture)(one), jax.jit(plain)(one), rtol=1e-5)
        slopes = jax.jit(jax.jacobian(mixture))(one)
        theirs = jax.jit(jax.jacobian(plain))(one)
    np.testing.assert_allclose(slopes["loc"], theirs["loc"], rtol=1e-4)
    np.testing.assert_allclose(slopes["log_scale"], theirs["log_scale"], rtol=1e-4)
    np.testing.assert_allclose(slopes["logits"], 0.0, atol=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
def test_at_the_posterior_every_sample_gives_the_evidence(bound):
    """x | z ~ N(z, 1) at x = 1: components that are all the posterior, N(1/2, 1/2)."""
    params = {
        "logits": PARAMS["logits"],
        "loc": jnp.full((S, 1), 0.5),
        "log_scale": jnp.full((S, 1), -0.5 * jnp.log(2.0)),
    }

    def joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z[0]) + dist.Normal(z[0], 1.0).log_prob(1.0)

    @jax.jit
    def value_of(params):
        return vi.estimators.stratified(
            jax.random.key(0), BOUNDS[bound], joint, guide(params), num_samples=2
        )

    value = value_of(params)
    np.testing.assert_allclose(value, dist.Normal(0.0, 2.0**0.5).log_prob(1.0), rtol=1e-5)


@pytest.mark.integration
def test_it_rises_with_samples_towards_log_p_and_stays_below():
    nodes = np.linspace(-6.0, 6.0, 4_001)
    density = np.exp(np.asarray(jax.vmap(log_joint)(jnp.asarray(nodes, jnp.float32)[:, None])))
    log_p = np.log(np.trapezoid(density.astype(np.float64), nodes))
    means = []
    for num_samples in (1, 4, 32):
        values = np.asarray(values_and_gradients("iwae", num_samples)[0], np.float64)
        stderr = values.std() / len(values) ** 0.5
        assert values.mean() < log_p + 5 * stderr
        means.append(values.mean())
    assert means[0] < means[1] < means[2]


def test_a_guide_without_components_is_refused():
    q = dist.Normal(jnp.zeros(1), jnp.ones(1)).to_event(1)
    with pytest.raises(ValueError, match="component of a mixture; got Independent"):
        vi.estimators.stratified(jax.random.key(0), vi.bounds.elbo, log_joint, q, num_samples=1)


def test_latents_that_are_a_pytree():
    tree = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    family = vi.families.mixture(tree, num_components=2)
    q = family.guide(family.init(jax.random.key(0)))

    def joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z["a"]) + dist.Normal(0.0, 1.0).log_prob(z["b"]).sum()

    @jax.jit
    def value_of(q):
        return vi.estimators.stratified(jax.random.key(1), vi.bounds.iwae, joint, q, num_samples=3)

    value = value_of(q)
    assert value.shape == ()
    assert np.isfinite(value)
