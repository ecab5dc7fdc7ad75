"""Bidirectional VAEs: the marginal of a linear one, a guide that says nothing, shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import keys, normal
from scipy import stats

import vi_jax as vi
from vi_jax.diagnostics import amortised

P = 3
SIGMA = 0.7
X = jnp.asarray(normal(1, P), jnp.float32)


def identity(h):
    return h


LINEAR = vi.models.bidirectional_vae(
    (P,),
    num_latents=(2, 1),
    width=3,
    activation=identity,
    likelihood=vi.models.likelihoods.gaussian(SIGMA),
)


def linear_params():
    """Somewhere, with prior scales that do not depend on h."""
    params = jax.jit(LINEAR.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    leaves = [
        leaf + 0.3 * jnp.asarray(normal(10 + number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    params = jax.tree.unflatten(structure, leaves)
    for name, size in (("z1", 2), ("z2", 1)):
        prior = params["layers"][name]["prior"]
        prior["kernel"] = prior["kernel"].at[:, size:].set(0.0)
        guide = params["layers"][name]["guide"]  # not far from p, or weights have heavy tails
        params["layers"][name]["guide"] = jax.tree.map(lambda leaf: 0.2 * leaf, guide)
    return params


def log_marginal(params):
    """log N(x; b, A A' + sigma^2 I), where the mean of x is A eps + b in the prior's noise."""
    prior = LINEAR.densities.prior(params, X)
    eps = {"z2": jnp.zeros(1), "z1": jnp.zeros(2)}

    def mean(eps):
        return LINEAR.densities.decode(params, X, prior.from_noise(eps)).mean

    slopes = jax.jit(jax.jacobian(mean))(eps)
    a = np.concatenate([slopes["z1"], slopes["z2"]], 1).astype(np.float64)
    b = np.asarray(mean(eps), np.float64)
    return stats.multivariate_normal(b, a @ a.T + SIGMA**2 * np.eye(P)).logpdf(np.asarray(X))


@pytest.mark.integration
def test_log_p_of_a_linear_one_is_that_of_the_gaussian_marginal():
    params = linear_params()
    expected = log_marginal(params)
    with jax.debug_key_reuse(False):
        found = amortised.log_evidence(
            jax.random.key(3), LINEAR, params, X[None], num_samples=20_000, chunk=1_000
        )
    np.testing.assert_allclose(found[0], expected, atol=0.03)

    @jax.jit
    @jax.vmap
    def elbos(key):
        terms = LINEAR.terms(key, params, X)
        return terms.log_lik - sum(kl.sum() for kl in terms.kl.values())

    values = np.asarray(elbos(keys(4, 2_000)), np.float64)
    assert values.mean() < expected + 5 * values.std() / 2_000**0.5


@pytest.mark.integration
def test_a_guide_that_says_nothing_is_the_prior():
    """KL exactly 0 at every layer, and weights of log p(x | z) alone."""
    params = linear_params()
    for own in params["layers"].values():
        own["guide"] = jax.tree.map(jnp.zeros_like, own["guide"])

    @jax.jit
    def of_one(key):
        terms = LINEAR.terms(key, params, X)
        z = LINEAR.densities.guide(params, X).sample(jax.random.fold_in(key, 1))
        log_p = LINEAR.densities.prior(params, X).log_prob(z)
        return terms.kl, LINEAR.densities.guide(params, X).log_prob(z) - log_p

    kls, gap = of_one(jax.random.key(0))
    for kl in kls.values():
        np.testing.assert_allclose(kl, 0.0, atol=1e-6)
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)


def test_images_are_halved_on_the_way_up_and_doubled_on_the_way_down():
    model = vi.models.conv_bidirectional_vae(
        (7, 5), num_latents=(1, 2, 3), halvings=(1, 1, 2), width=4, activation=nn.relu
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jnp.zeros((7, 5))

    def draw(params, key):
        z = model.densities.guide(params, x).sample(key)
        return z, model.densities.decode(params, x, z).mean

    z, mean = jax.eval_shape(draw, params, jax.random.key(1))
    assert {name: leaf.shape for name, leaf in z.items()} == {
        "z1": (4 * 3,),
        "z2": (2 * 4 * 3,),
        "z3": (3 * 2 * 2,),
    }
    assert mean.shape == (7, 5)
    assert params["top"].shape == (2, 2, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_latents=(1, 1), halvings=(0, 2)), "1 more"),
        (dict(num_latents=(1,), halvings=(0, 1)), "for 1 layers"),
        (dict(num_latents=(), halvings=()), "expects a positive number"),
    ],
)
def test_layers_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        vi.models.conv_bidirectional_vae((4, 4), **options)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="Take bidirectional_vae"):
        vi.models.conv_bidirectional_vae((4,))
