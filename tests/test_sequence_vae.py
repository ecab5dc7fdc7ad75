"""Sequences of unequal length: what is masked or padded changes nothing, one step is a row of a
table, and log p(x) is that of quadrature.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal

import vi_jax as vi
from vi_jax.models.architectures import Architecture
from vi_jax.models.networks import Network
from vi_jax.models.sequence_vae import length_of, sequence_vae
from vi_jax.models.table_vae import Column, table_vae

COLUMNS = (
    Column("gaussian", start=0.3),
    Column("poisson", start=0.5),
    Column("bernoulli"),
)
NUM_STEPS = 5


@functools.cache
def model_and_params(num_latents=2):
    model = sequence_vae(
        COLUMNS, num_latents=num_latents, width=3, num_covariates=1, has_exposure=True
    )
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    moved = [leaf + 0.3 * jnp.asarray(normal(i, *leaf.shape)) for i, leaf in enumerate(leaves)]
    return model, jax.tree.unflatten(structure, moved)


def example(num_steps=NUM_STEPS, length=4):
    """One of a length, with a step in the middle of which nothing is observed."""
    rng = np.random.default_rng(0)
    each = (
        rng.standard_normal(num_steps),
        rng.poisson(2.0, num_steps),
        rng.integers(0, 2, num_steps),
    )
    observed = rng.random((num_steps, 3)) < 0.7
    observed[1] = False
    observed[length - 1, 0] = True
    observed[length:] = False
    return {
        "values": jnp.asarray(np.stack(each, 1) * observed, jnp.float32),
        "observed": jnp.asarray(observed),
        "exposure": jnp.asarray(np.exp(rng.standard_normal(num_steps)), jnp.float32),
        "covariates": jnp.asarray(rng.standard_normal((num_steps, 1)), jnp.float32),
    }


def padded(x, more):
    """The same with further steps, in which nothing is observed."""
    filled = {"values": 0.0, "observed": False, "exposure": 1.0, "covariates": 7.0}
    return {
        name: jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1), constant_values=filled[name])
        for name, leaf in x.items()
    }


@functools.cache
def bound_and_gradient():
    """(params, x) -> a bound of one example, with its gradient."""
    model, _ = model_and_params()

    def bound(params, x):
        terms = model.terms(jax.random.key(1), params, x)
        return terms.log_lik - terms.kl["z"].sum()

    return jax.jit(jax.value_and_grad(bound))


@pytest.mark.integration
def test_what_is_masked_changes_no_bit():
    _, params = model_and_params()
    x = example()
    for lie in (np.nan, 1e30, -3.0):
        other = {**x, "values": jnp.where(x["observed"], x["values"], lie)}
        pairs = zip(
            jax.tree.leaves(bound_and_gradient()(params, x)),
            jax.tree.leaves(bound_and_gradient()(params, other)),
            strict=True,
        )
        for one, another in pairs:
            np.testing.assert_array_equal(one, another)
            assert np.isfinite(one).all()


@pytest.mark.integration
def test_more_padding_changes_nothing():
    """The guide to the last bit, the bound and its gradient to the rounding of longer sums."""
    model, params = model_and_params()
    x = example()
    longer = padded(x, 6)
    guide = jax.jit(model.densities.guide)
    np.testing.assert_array_equal(guide(params, x).mean, guide(params, longer).mean)
    pairs = zip(
        jax.tree.leaves(bound_and_gradient()(params, x)),
        jax.tree.leaves(bound_and_gradient()(params, longer)),
        strict=True,
    )
    for one, another in pairs:
        np.testing.assert_allclose(one, another, rtol=2e-5, atol=1e-5)


@pytest.mark.integration
def test_every_observed_step_is_seen():
    """The guide moves with each value that is observed, first and last ones among them."""
    model, params = model_and_params()
    x = example()

    def mean(values):
        return model.densities.guide(params, {**x, "values": values}).mean.sum()

    slope = np.asarray(jax.jit(jax.grad(mean))(x["values"]))
    is_real = np.zeros((NUM_STEPS, 3), bool)
    is_real[:, :2] = True  # a Bernoulli's value is a feature too, of which 0 and 1 are all there is
    assert (slope[np.asarray(x["observed"]) & is_real] != 0).all()
    assert (slope[~np.asarray(x["observed"])] == 0).all()


@pytest.mark.integration
def test_a_length_ends_at_the_last_observed_step():
    observed = np.zeros((4, 2), bool)
    assert length_of(jnp.asarray(observed)) == 0
    observed[1, 1] = True
    assert length_of(jnp.asarray(observed)) == 2
    model, params = model_and_params()
    nothing = {**example(), "observed": jnp.zeros((NUM_STEPS, 3), bool)}
    terms = model.terms(jax.random.key(0), params, nothing)
    assert terms.log_lik == 0.0
    assert np.isfinite(terms.kl["z"]).all()


@pytest.mark.integration
def test_one_step_is_a_row_of_a_table():
    """A table whose networks are those of a sequence of one step has the same terms."""
    model, params = model_and_params()

    def encoder(x_shape, num_outputs, dtype):
        return Network(lambda key: params["encoder"], lambda own, features: features)

    def decoder(x_shape, num_outputs, num_latents, output_bias, dtype):
        def apply(own, seen):
            x = {**one_step, "covariates": seen[None, 2:]}
            p = model.densities.decode({**params, "decoder": own}, x, seen[:2])
            return p.outputs[0][:, None]

        return Network(lambda key: params["decoder"], apply)

    one_step = jax.tree.map(lambda leaf: leaf[3:4], example())
    row = jax.tree.map(lambda leaf: leaf[0], one_step)
    rows = table_vae(
        COLUMNS,
        num_latents=2,
        num_covariates=1,
        has_exposure=True,
        network=Architecture(encoder, decoder),
    )
    z = jnp.array([0.4, -1.1])
    for name in ("log_lik", "decode"):
        ours = getattr(model.densities, name)(params, one_step, z)
        theirs = getattr(rows.densities, name)(params, row, z)
        if name == "decode":
            ours = ours.mean[0]
            theirs = theirs.mean
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.integration
def test_a_log_likelihood_is_that_of_its_steps():
    """The sum over steps and columns of the entries that are observed, each a row's own."""
    model, params = model_and_params()
    x = example()
    z = jnp.array([0.4, -1.1])
    p = model.densities.decode(params, x, z)
    each = p.log_probs(x)
    assert each.shape == (NUM_STEPS, 3)
    assert (each[~x["observed"]] == 0).all()
    np.testing.assert_allclose(each.sum(), model.densities.log_lik(params, x, z), rtol=1e-6)
    rate = jnp.exp(p.outputs[:, 1]) * x["exposure"]
    np.testing.assert_allclose(p.mean[:, 1], rate, rtol=1e-5)


@pytest.mark.integration
def test_importance_samples_give_the_log_p_of_quadrature():
    """One latent: log of the integral of p(z) p(x | z) over a grid."""
    model, params = model_and_params(num_latents=1)
    x = example()
    grid = jnp.linspace(-8.0, 8.0, 2_001)
    log_joint = vi.losses.log_joint(model, params, x)
    on_grid = jax.jit(jax.vmap(log_joint))(grid[:, None])
    exact = jax.nn.logsumexp(on_grid) + jnp.log(grid[1] - grid[0])
    q = model.densities.guide(params, x)
    z = q.sample(jax.random.key(2), (20_000,))
    log_w = jax.jit(jax.vmap(lambda z: log_joint(z) - q.log_prob(z)))(z)
    w = np.exp(np.asarray(log_w - exact, np.float64))
    assert abs(w.mean() - 1.0) < 5 * w.std() / len(w) ** 0.5
    assert w.std() / len(w) ** 0.5 < 0.02


@pytest.mark.integration
def test_samples_are_whole_sequences():
    model, params = model_and_params()
    x = example()
    p = model.densities.decode(params, x, jnp.zeros(2))
    drawn = jax.jit(lambda p, key: p.sample(key, (4_000,)))(p, jax.random.key(0))
    assert drawn["values"].shape == (4_000, NUM_STEPS, 3)
    assert drawn["observed"].all()
    assert drawn["covariates"].shape == (4_000, NUM_STEPS, 1)
    error = np.sqrt(np.asarray(p.variance) / 4_000)
    off = np.abs(np.asarray(drawn["values"]).mean(0) - np.asarray(p.mean)) / error
    assert off.max() < 5
    assert p.probs.shape == (NUM_STEPS, 3, 2)


@pytest.mark.integration
def test_without_an_example_the_steps_are_those_that_it_was_made_for():
    model = sequence_vae(COLUMNS[:1], num_latents=1, width=2, max_steps=7)
    params = model.init(jax.random.key(0))
    assert model.generate(jax.random.key(1), params, None).mean.shape == (7, 1)
    other = sequence_vae(COLUMNS[:1], num_latents=1, width=2)
    with pytest.raises(ValueError, match="to know how many steps"):
        other.generate(jax.random.key(1), params, None)


@pytest.mark.integration
def test_what_cannot_be_is_refused():
    for bad in [
        lambda: sequence_vae((), num_latents=1),
        lambda: sequence_vae(COLUMNS, num_latents=0),
        lambda: sequence_vae(COLUMNS, num_latents=1, width=0),
        lambda: sequence_vae(COLUMNS, num_latents=1, max_steps=0),
        lambda: sequence_vae(COLUMNS, num_latents=1, min_scale=1.0),
    ]:
        with pytest.raises(ValueError, match=r"expects|needs"):
            bad()
    model, params = model_and_params()
    batch = jax.tree.map(lambda leaf: leaf[None], example())
    with pytest.raises(ValueError, match="vmap over a batch"):
        model.densities.guide(params, batch)
