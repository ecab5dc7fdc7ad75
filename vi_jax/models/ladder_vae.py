"""The ladder VAE: a guide that follows the generative path and corrects it by the data."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.distributions import Program, paired
from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._layers import (
    as_float,
    diagonal_by_softplus,
    init_all,
    require_sizes,
    site_names,
    standard_normal,
)
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params


def ladder_vae(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (64, 32, 16, 8, 4),
    hidden: Sequence[Sequence[int]] = ((512, 512), (256, 256), (128, 128), (64, 64), (64, 64)),
    activation: Callable[[Array], Array] = nn.leaky_relu,
    norm: Literal["none", "layer"] = "none",
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """Five stochastic layers by default; the guide of a layer merges the prior's Gaussian with one
    that the data put out, by precision (Sonderby et al. 2016, eq. 8 to 13).

        d_l = MLP_l(d_{l-1}), d_0 = x;      q^_l = N(mu^_l, sigma^_l^2) by a linear layer of d_l;
        q(z_l | z_{l+1}, x) of precision sigma^_l^-2 + sigma_p^-2, and the mean weighted by them.

    Every KL is in closed form, given the layers above. There is no batch normalisation, as q(z | x)
    would depend on the other examples of a batch; use `norm`, and warm-up or free bits by layer
    (`losses.negative_elbo`).

    Args:
      x_shape: of one example.
      num_latents: of each layer, from x upwards; the sites are z1, z2, ...
      hidden: widths of MLP_l, and mirrored of the generative network below z_l.
      activation: between layers.
      norm: "layer" brings what comes to an activation to mean 0 and variance 1 over its units (Ba
        et al. 2016, without their gain and bias); or "none".
      likelihood: of x given z1; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"up", "heads", "down", "decoder", "likelihood"}.
    """
    x_shape = tuple(x_shape)
    require_sizes("ladder_vae", num_latents, hidden)
    activation = _normalised(activation, norm)
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    names = site_names(len(num_latents))
    up, heads, down = _networks(x_shape, names, num_latents, hidden, activation)
    mirror = tuple(hidden[0])[::-1]
    num_outputs = likelihood.num_outputs
    decoder = networks.mlp_decoder(
        x_shape, num_outputs, num_latents[0], mirror, activation, output_bias
    )
    pixels = emission(x_shape, decoder, likelihood)

    def init(key: Array) -> Params:
        key_up, key_heads, key_down, key_pixels = jax.random.split(key, 4)
        return {
            "up": init_all(key_up, up),
            "heads": init_all(key_heads, heads),
            "down": init_all(key_down, down),
            **pixels.init(key_pixels),
        }

    def top_down(params: Params, found: Any, site: Callable[..., Any]) -> None:
        """From the top down; `found` {site: row of q^}, which the prior does not look at."""
        top = names[-1]
        z = site(top, standard_normal(num_latents[-1]), lambda p: diagonal_by_softplus(found[top]))
        for name in names[-2::-1]:
            p = diagonal_by_softplus(down[name].apply(params[name], z))
            z = site(name, p, lambda p, name=name: _merge(found[name], p))

    function_q, function_p = paired(top_down)

    def guide(params: Params, x: Array) -> Program:
        check_shape(x, x_shape)
        found = {}
        d = as_float(x)
        for name in names:
            d = activation(up[name].apply(params["up"][name], d))
            found[name] = heads[name].apply(params["heads"][name], d)
        return Program(params["down"], found, function_q)

    return from_emission(
        init,
        guide,
        lambda params, x: Program(params["down"], None, function_p),
        pixels,
        kl="closed",
        h_of=lambda x, z: z["z1"],
    )


def _normalised(activation: Callable[[Array], Array], norm: str) -> Callable[[Array], Array]:
    """The activation, after layer normalisation where that is asked for.

    Raises:
      ValueError: `norm` is another word.
    """
    if norm == "none":
        return activation
    if norm != "layer":
        raise ValueError(f"norm is 'none' or 'layer'; got {norm!r}.")
    return lambda h: activation(jax.nn.standardize(h, axis=-1, epsilon=1e-5))


def _networks(
    x_shape: tuple[int, ...],
    names: list[str],
    num_latents: Sequence[int],
    hidden: Sequence[Sequence[int]],
    activation: Callable[[Array], Array],
) -> tuple[dict[str, networks.Network], dict[str, networks.Network], dict[str, networks.Network]]:
    """MLP_l, the linear layers of q^_l, and those of p(z_l | z_{l+1}), by site."""
    up = {}
    heads = {}
    down = {}
    below = x_shape
    for level, name in enumerate(names):
        widths = tuple(hidden[level])
        up[name] = networks.mlp_encoder(below, widths[-1], widths[:-1], activation)
        below = (widths[-1],)
        heads[name] = networks.mlp_encoder(below, 2 * num_latents[level], (), activation)
        if level + 1 < len(names):
            above = (num_latents[level + 1],)
            mirrored = tuple(hidden[level + 1])[::-1]
            outputs = 2 * num_latents[level]
            down[name] = networks.mlp_encoder(above, outputs, mirrored, activation)
    return up, heads, down


def _merge(row: Array, p: dist.Independent) -> dist.Independent:
    """The product of the Gaussian of a row and p, normalised: precisions add."""
    data = diagonal_by_softplus(row).base_dist
    prior = p.base_dist
    log_ratio = jnp.log(prior.scale) - jnp.log(data.scale)
    share = jax.nn.sigmoid(2.0 * log_ratio)  # of the data's precision in the sum
    merged = share * data.loc + (1.0 - share) * prior.loc
    return dist.Normal(merged, data.scale * jnp.sqrt(share)).to_event(1)
