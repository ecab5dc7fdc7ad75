"""Many equal layers as one density: that of the unrolled walk, its KL by layer, a program whose
size does not grow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers import assert_mean, keys, normal

import vi_jax as vi
from vi_jax.distributions import Bernoulli, Program, Stack
from vi_jax.losses import negative_elbo
from vi_jax.models import from_densities
from vi_jax.types import Drawn, Stacked

D = 2


def layer(params, h):
    """p(z_l | h) and the next h."""
    p = dist.Normal(params["w"] @ h, jnp.exp(params["log_scale"])).to_event(1)
    return p, lambda z: jnp.tanh(h + params["v"] @ z)


def params_of(num_layers, seed=0):
    return {
        "w": jnp.asarray(0.5 * normal(seed, num_layers, D, D), jnp.float32),
        "v": jnp.asarray(0.5 * normal(seed + 1, num_layers, D, D), jnp.float32),
        "log_scale": jnp.asarray(0.3 * normal(seed + 2, num_layers, D), jnp.float32),
    }


def unrolled(params, h, site):
    for number in range(params["w"].shape[0]):
        p, after = layer(jax.tree.map(lambda leaf, n=number: leaf[n], params), h)
        h = after(site(f"z{number}", p))


H = jnp.array([0.4, -0.8])
L = 4
STACK = Stack(params_of(L), H, layer)
WALK = Program(params_of(L), H, unrolled)


def by_name(z):
    return {f"z{number}": z[number] for number in range(L)}


@pytest.mark.integration
def test_it_is_the_unrolled_walk():
    z = STACK.sample(jax.random.key(0))
    assert z.shape == (L, D)
    np.testing.assert_allclose(STACK.log_prob(z), WALK.log_prob(by_name(z)), rtol=1e-5)
    assert STACK.log_probs(z).shape == (L,)
    eps = STACK.to_noise(z)
    walked = WALK.to_noise(by_name(z))
    np.testing.assert_allclose(eps, jnp.stack(list(walked.values())), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(STACK.from_noise(eps), z, rtol=1e-4, atol=1e-5)
    ours = jax.grad(lambda q: q.from_noise(eps)[-1].sum())(STACK).params
    walk = jax.grad(lambda q: q.from_noise(walked)[f"z{L - 1}"].sum())(WALK).params
    for name in ours:
        np.testing.assert_allclose(ours[name], walk[name], rtol=1e-4, atol=1e-5)
    assert STACK.sample(jax.random.key(1), (3, 2)).shape == (3, 2, L, D)


def coin_layer(params, h):
    return Bernoulli(params["w"] @ h).to_event(1), lambda z: h + params["v"] @ z


def test_it_says_whether_its_samples_are_reparameterised():
    assert STACK.has_rsample
    assert not Stack(params_of(L), H, coin_layer).has_rsample
    z = Stack(params_of(L), H, coin_layer).sample(jax.random.key(2))
    assert set(np.unique(z)) <= {0.0, 1.0}


def walk_of(params, h, site):
    stack = Stack(params["stack"], h, layer)
    h = stack.end(site("deep", stack))
    site("last", dist.Normal(h, 1.0).to_event(1))


def stacked_model(kl):
    """q and p of the same walk, at other parameters."""

    def decode(params, x, z):
        return dist.Normal(z["last"], 1.0).to_event(1)

    return from_densities(
        lambda key: {"q": {"stack": params_of(L, 5)}, "p": {"stack": params_of(L, 9)}},
        lambda params, x: Program(params["q"], x, walk_of),
        lambda params, x: Program(params["p"], H, walk_of),
        decode,
        lambda params, x, z: decode(params, x, z).log_prob(x),
        kl=kl,
    )


@pytest.mark.integration
def test_its_kl_is_by_layer_closed_or_drawn():
    models = [stacked_model("closed"), stacked_model("drawn")]
    params = models[0].init(None)

    @jax.jit
    @jax.vmap
    def both(key):
        return [model.terms(key, params, H).kl for model in models]

    closed, drawn = both(keys(3, 4_000))
    assert isinstance(closed["deep"], Stacked)
    assert isinstance(drawn["deep"].value, Drawn)
    assert closed["deep"].value.shape == (4_000, L, D)
    gap = closed["deep"].value.sum(-1) - drawn["deep"].value.value
    assert_mean(gap, np.zeros(L))
    assert np.abs(closed["deep"].value).max() > 0.01


@pytest.mark.integration
@pytest.mark.parametrize("by", ["batch", "example"])
def test_free_bits_go_by_its_layers(by):
    model = stacked_model("closed")
    params = model.init(None)
    x = jnp.asarray(normal(4, 3, D), jnp.float32)
    terms = vi.losses.batch_terms(jax.random.key(5), model, params, x)
    deep = np.asarray(terms.kl["deep"].value, np.float64).sum(-1)  # [B, L]
    last = np.asarray(terms.kl["last"], np.float64).sum(-1)
    floor = float(np.median(deep))
    value, info = negative_elbo(model, free_bits=floor, group="layer", by=by)(
        params, jax.random.key(5), x, jnp.int32(0)
    )
    groups = np.concatenate([deep, last[:, None]], 1)
    if by == "batch":
        wanted = np.maximum(groups.mean(0), floor).sum()
    else:
        wanted = np.maximum(groups, floor).mean(0).sum()
    np.testing.assert_allclose(value + info.metrics["log_lik"], wanted, rtol=1e-5)
    names = {f"kl/deep/{number}" for number in range(1, L + 1)} | {"kl/last"}
    assert names == {name for name in info.metrics if "/" in name}
    layers = [info.metrics[f"kl/deep/{number}"] for number in range(1, L + 1)]
    np.testing.assert_allclose(layers, deep.mean(0), rtol=1e-5)


def test_its_program_does_not_grow_with_its_layers():
    def size(num_layers):
        stack = Stack(params_of(num_layers), H, layer)
        lowered = jax.jit(jax.grad(lambda q, z: q.log_prob(z))).lower(
            stack, jnp.zeros((num_layers, D))
        )
        return lowered.as_text().count("\n")

    assert size(40) == size(4)


def test_two_stacks_of_a_site_have_as_many_layers():
    other = Stack(params_of(L + 1), H, layer)
    pair = vi.distributions.stack.each_pair
    with pytest.raises(ValueError, match="got 4 and 5"):
        pair(STACK, other, STACK.sample(jax.random.key(0)), lambda q, p, z: z)
