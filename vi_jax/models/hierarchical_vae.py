"""The VAE with several stochastic layers and a bottom-up guide."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from vi_jax.distributions import Program
from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._kl import KL
from vi_jax.models._layers import (
    as_float,
    diagonal,
    init_all,
    require_sizes,
    site_names,
    standard_normal,
)
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params


def hierarchical_vae(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (100, 50),
    hidden: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
    activation: Callable[[Array], Array] = nn.tanh,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
    kl: KL = "half_closed",
) -> Model:
    """Several stochastic layers (Burda et al. 2016, sec. 5 and appendix C); two of them by default,
    as their deeper model has.

        p: z_L ~ N(0, I), z_l | z_{l+1} and x | z_1 by networks;
        q: z_1 | x, z_{l+1} | z_l by networks.

    Args:
      x_shape: of one example.
      num_latents: of each layer, from x upwards; the sites are z1, z2, ...
      hidden: widths of the networks between a layer and the one below it, from below upwards.
      activation: between layers.
      likelihood: of x given z1; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      kl: "half_closed": closed at the top, where the prior depends on nothing, and at the draw
        below it, where the prior depends on what the guide draws later; or "drawn".

    Returns:
      A Model of parameters {"guide", "prior", "decoder", "likelihood"}.
    """
    x_shape = tuple(x_shape)
    require_sizes("hierarchical_vae", num_latents, hidden)
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    names = site_names(len(num_latents))
    up, down = _networks(x_shape, names, num_latents, hidden, activation)
    decoder = networks.mlp_decoder(
        x_shape,
        likelihood.num_outputs,
        num_latents[0],
        tuple(hidden[0])[::-1],
        activation,
        output_bias,
    )
    pixels = emission(x_shape, decoder, likelihood)

    def init(key: Array) -> Params:
        key_up, key_down, key_pixels = jax.random.split(key, 3)
        return {
            "guide": init_all(key_up, up),
            "prior": init_all(key_down, down),
            **pixels.init(key_pixels),
        }

    def bottom_up(params: Params, x: Array, site: Callable[..., Any]) -> None:
        h = x
        for name in names:
            h = site(name, diagonal(up[name].apply(params[name], h)))

    def top_down(params: Params, context: None, site: Callable[..., Any]) -> None:
        z = site(names[-1], standard_normal(num_latents[-1]))
        for name in names[-2::-1]:
            z = site(name, diagonal(down[name].apply(params[name], z)))

    def guide(params: Params, x: Array) -> Program:
        check_shape(x, x_shape)
        return Program(params["guide"], as_float(x), bottom_up)

    return from_emission(
        init,
        guide,
        lambda params, x: Program(params["prior"], None, top_down),
        pixels,
        kl=kl,
        h_of=lambda x, z: z["z1"],
    )


def _networks(
    x_shape: tuple[int, ...],
    names: list[str],
    num_latents: Sequence[int],
    hidden: Sequence[Sequence[int]],
    activation: Callable[[Array], Array],
) -> tuple[dict[str, networks.Network], dict[str, networks.Network]]:
    """Those of q(z_l | z_{l-1}) and of p(z_l | z_{l+1}), by site."""
    up = {}
    down = {}
    below = x_shape
    for level, name in enumerate(names):
        outputs = 2 * num_latents[level]
        up[name] = networks.mlp_encoder(below, outputs, hidden[level], activation)
        below = (num_latents[level],)
        if level + 1 < len(names):
            above = (num_latents[level + 1],)
            mirrored = tuple(hidden[level + 1])[::-1]
            down[name] = networks.mlp_encoder(above, outputs, mirrored, activation)
    return up, down
