"""Models of one example: shapes of every rank, any pair of networks, a batch by vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import all_finite, keys, normal, tree_equal

import vi_jax as vi
from vi_jax.models import amortised, likelihoods, networks, vae
from vi_jax.models.networks import Network


def mlp_vae(x_shape, **options):
    return vae(x_shape, num_latents=2, hidden=(6,), **options)


def conv_vae(x_shape, likelihood=None, **options):
    return amortised(
        x_shape,
        lambda num_outputs: networks.conv_encoder(x_shape, num_outputs, (3, 4)),
        lambda num_outputs: networks.conv_decoder(x_shape, num_outputs, 2, (4, 3)),
        vi.families.mean_field(2),
        likelihood or likelihoods.bernoulli(),
        num_latents=2,
        **options,
    )


IMAGES = [(8, 8), (28, 28), (5, 7), (9, 9, 3)]
CASES = [("mlp", mlp_vae, shape) for shape in [(5,), *IMAGES, (2, 3, 4, 2)]] + [
    ("conv", conv_vae, s) for s in IMAGES
]
IDS = [f"{name} {shape}" for name, _, shape in CASES]
LIKELIHOODS = {
    "bernoulli": likelihoods.bernoulli(),
    "gaussian": likelihoods.gaussian(0.5),
    "learned": likelihoods.gaussian_learned(),
    "per dimension": likelihoods.gaussian_per_dimension(),
    "optimal": likelihoods.gaussian_optimal(),
    "discretised": likelihoods.discretized_logistic(16),
    "categorical": likelihoods.categorical(16),
}


def some_x(*shape, seed=0):
    return jnp.asarray(normal(seed, *shape) > 0, jnp.float32)


@pytest.mark.cases(
    rest="slow",
    default=["mlp (5, 7)", "conv (5, 7)"],
    integration=["conv (28, 28)", "mlp (9, 9, 3)"],
)
@pytest.mark.parametrize(("name", "make", "x_shape"), CASES, ids=IDS)
def test_shapes_and_gradients(name, make, x_shape, strict_ranks):
    model = make(x_shape)
    x = some_x(*x_shape)
    z = jnp.full(2, 0.3)

    def f(params, x, z):
        q = model.densities.guide(params, x)
        return model.densities.log_lik(params, x, z) + q.log_prob(z)

    def shapes(params, x, z):
        q = model.densities.guide(params, x)
        p = model.densities.prior(params, x)
        x_given_z = model.densities.decode(params, None, z)
        return q.sample(jax.random.key(1)), p.log_prob(z), x_given_z.mean, x_given_z.log_prob(x)

    @jax.jit
    def at_the_start(key, x, z):
        params = model.init(key)
        assert sorted(params) == ["decoder", "encoder", "likelihood"]
        made = jax.eval_shape(shapes, params, x, z)
        assert [leaf.shape for leaf in made] == [(2,), (), x_shape, x_shape]
        return jax.value_and_grad(f)(params, x, z)

    value, gradient = at_the_start(jax.random.key(0), x, z)
    assert value.shape == ()
    assert all_finite(gradient)
    # every kernel matters: no part of the networks is cut off by a crop or a stride
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("name", "make"),
    [*((name, mlp_vae) for name in sorted(LIKELIHOODS)), ("discretised", conv_vae)],
)
def test_each_likelihood_is_summed_over_every_pixel(name, make):
    model = make((5, 7, 3), likelihood=LIKELIHOODS[name])
    x = some_x(5, 7, 3)
    z = jnp.array([0.4, -1.0])
    x = x.astype(int) if name == "categorical" else x

    @jax.jit
    def both(key):
        params = model.init(key)
        return model.densities.decode(params, None, z).log_prob(x), model.densities.log_lik(
            params, x, z
        )

    terms, total = both(jax.random.key(0))
    assert terms.shape == (5, 7, 3)
    np.testing.assert_allclose(total, np.asarray(terms, np.float64).sum(), rtol=1e-5)


@pytest.mark.integration
def test_init_is_a_function_of_the_key():
    model = mlp_vae((4,))
    first, again, other = (model.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert tree_equal(first, again)
    assert not tree_equal(first, other)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(first))


def test_encoder_and_decoder_are_not_drawn_alike():
    params = vae((2,), num_latents=2, hidden=()).init(jax.random.key(0))
    encoder, decoder = (jax.tree.leaves(params[part]) for part in ("encoder", "decoder"))
    assert not any(np.array_equal(a, b) for a in encoder for b in decoder if a.ndim == b.ndim == 2)


@pytest.mark.parametrize("make", [mlp_vae, conv_vae])
def test_a_batch_is_a_loop(make):
    model = make((5, 7))
    params = model.init(jax.random.key(0))
    x = some_x(3, 5, 7)
    z = jnp.asarray(normal(1, 3, 2), jnp.float32)

    def f(params, x, z, key):
        q = model.densities.guide(params, x)
        return model.densities.log_lik(params, x, z), q.log_prob(z), q.sample(key)

    batch = jax.jit(jax.vmap(f, (None, 0, 0, 0)))(params, x, z, keys(0, 3))
    alone = jax.jit(f)
    for i, key in enumerate(keys(0, 3)):
        for whole, one in zip(batch, alone(params, x[i], z[i], key), strict=True):
            np.testing.assert_allclose(whole[i], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [mlp_vae, conv_vae])
def test_a_wrong_shape_is_refused_in_words(make):
    model = make((5, 7))
    params = jax.eval_shape(model.init, jax.random.key(0))
    for shape in [(7, 5), (3, 5, 7), (35,)]:
        with pytest.raises(ValueError, match=r"\(5, 7\).*vmap over a batch") as error:
            jax.eval_shape(model.densities.log_lik, params, some_x(*shape), jnp.zeros(2))
        assert str(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(7, 5), (35,)])
def test_an_encoder_refuses_a_wrong_shape_in_words_too(shape):
    """(7, 5) has as many numbers as (5, 7): ravelled, it would pass without a word."""
    model = mlp_vae((5, 7))
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"\(5, 7\)"):
        jax.eval_shape(
            lambda params, x: model.densities.guide(params, x).mean, params, some_x(*shape)
        )


def linear(weights):
    """A Network of one matrix, without Flax."""
    return Network(
        lambda key: {"w": jnp.asarray(weights, jnp.float32)}, lambda params, x: params["w"] @ x
    )


def test_any_pair_of_functions_serves():
    encoder = 0.3 * normal(2, 4, 3)
    decoder = normal(3, 3, 2)
    model = amortised(
        (3,),
        lambda num_outputs: linear(encoder[:num_outputs]),
        lambda num_outputs: Network(
            lambda key: {"w": jnp.asarray(decoder, jnp.float32)}, lambda p, z: (p["w"] @ z)[:, None]
        ),
        vi.families.mean_field(2),
        likelihoods.gaussian(0.5),
        num_latents=2,
    )
    params = model.init(jax.random.key(0))
    x = np.array([0.2, -1.0, 0.7], np.float32)
    z = np.array([0.5, -0.2], np.float32)
    q = model.densities.guide(params, jnp.asarray(x)).base_dist
    np.testing.assert_allclose(q.loc, encoder[:2] @ x, rtol=1e-5)
    np.testing.assert_allclose(q.scale, np.exp(encoder[2:] @ x), rtol=1e-5)
    error = x - decoder @ z
    expected = -0.5 * (error**2).sum() / 0.25 - 3 * np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(
        model.densities.log_lik(params, jnp.asarray(x), jnp.asarray(z)), expected, rtol=1e-5
    )


@pytest.mark.integration
def test_the_output_bias_is_where_the_decoder_starts():
    bias = jnp.asarray(normal(4, 5, 7, 1), jnp.float32)
    plain = mlp_vae((5, 7))
    shifted = mlp_vae((5, 7), output_bias=bias)
    z = jnp.ones(2)
    gap = (
        shifted.densities.decode(shifted.init(jax.random.key(0)), None, z).logits
        - plain.densities.decode(plain.init(jax.random.key(0)), None, z).logits
    )
    np.testing.assert_allclose(gap, bias[..., 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(5, 7, 1\); got \(5, 7\)"):
        mlp_vae((5, 7), output_bias=bias[..., 0])


@pytest.mark.integration
def test_the_encoder_sees_scaled_levels_and_the_likelihood_sees_levels():
    options = dict(likelihood=likelihoods.discretized_logistic(16))
    levels = jnp.asarray(np.random.default_rng(0).integers(0, 16, (8, 8)), jnp.uint8)
    plain = conv_vae((8, 8), **options)
    scaled = conv_vae((8, 8), **options, input_scale=1 / 15)
    params = plain.init(jax.random.key(0))
    ours = scaled.densities.guide(params, levels).base_dist
    theirs = plain.densities.guide(params, levels.astype(jnp.float32) / 15).base_dist
    np.testing.assert_allclose(ours.loc, theirs.loc, rtol=1e-4, atol=1e-6)
    z = jnp.zeros(2)
    as_bytes, as_floats = (
        scaled.densities.log_lik(params, x, z) for x in (levels, levels.astype(jnp.float32))
    )
    np.testing.assert_allclose(as_bytes, as_floats, rtol=1e-6)


def test_the_prior_is_the_standard_normal():
    model = mlp_vae((4,))
    p = model.densities.prior(model.init(jax.random.key(0)), None)
    np.testing.assert_allclose(
        p.log_prob(jnp.array([1.0, -2.0])), -2.5 - np.log(2 * np.pi), rtol=1e-6
    )


def test_sizes_that_are_none_are_refused():
    for bad in [
        dict(x_shape=(4,), num_latents=0),
        dict(x_shape=(0,), num_latents=2),
        dict(x_shape=(4,), num_latents=2, hidden=(0,)),
    ]:
        with pytest.raises(ValueError, match="positive sizes"):
            vae(**bad)
    for shape in [(5,), (2, 3, 4, 5)]:
        with pytest.raises(ValueError, match=r"\[H, W\]"):
            networks.conv_encoder(shape, 4)
        with pytest.raises(ValueError, match=r"\[H, W\]"):
            networks.conv_decoder(shape, 1, 2)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    for make in (likelihoods.gaussian, likelihoods.gaussian_learned, likelihoods.gaussian_optimal):
        with pytest.raises(ValueError, match="> 0"):
            make(sigma)
