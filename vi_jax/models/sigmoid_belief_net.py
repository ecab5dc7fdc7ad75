"""The sigmoid belief network: layers of Bernoulli latents."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.distributions import Program
from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._layers import as_float, coins, init_all, require_sizes, site_names
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params


def sigmoid_belief_net(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (200, 200),
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """Layers of coins, each given the one above by its weighted sum (Neal 1992; Mnih & Rezende
    2016, sec. 4.2, whose network has two or three layers of 200).

        p: z_L ~ Bernoulli(sigmoid(b_L)), z_l | z_{l+1} ~ Bernoulli(sigmoid(W_l z_{l+1} + b_l));
        q: z_1 | x, z_{l+1} | z_l, likewise.

    Train it by `losses.negative_bound` with `vimco` (IWAE) or `score` (ELBO), or by
    `losses.wake_wake`; `negative_elbo` refuses it, as no gradient goes through the samples.

    Args:
      x_shape: of one example.
      num_latents: of each layer, from x upwards; the sites are z1, z2, ..., zeros and ones.
      likelihood: of x given z1; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"guide", "prior", "top", "decoder", "likelihood"}.
    """
    x_shape = tuple(x_shape)
    require_sizes("sigmoid_belief_net", num_latents, [()] * len(num_latents))
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    names = site_names(len(num_latents))
    below = [x_shape, *((size,) for size in num_latents[:-1])]
    up = {
        name: networks.mlp_encoder(shape, size, (), nn.tanh)
        for name, shape, size in zip(names, below, num_latents, strict=True)
    }
    down = {
        name: networks.mlp_encoder((above,), size, (), nn.tanh)
        for name, above, size in zip(names[:-1], num_latents[1:], num_latents[:-1], strict=True)
    }
    decoder = networks.mlp_decoder(
        x_shape, likelihood.num_outputs, num_latents[0], (), nn.tanh, output_bias
    )
    pixels = emission(x_shape, decoder, likelihood)

    def init(key: Array) -> Params:
        key_up, key_down, key_pixels = jax.random.split(key, 3)
        return {
            "guide": init_all(key_up, up),
            "prior": init_all(key_down, down),
            "top": jnp.zeros(num_latents[-1]),
            **pixels.init(key_pixels),
        }

    def bottom_up(params: Params, x: Array, site: Callable[..., Any]) -> None:
        h = x
        for name in names:
            h = site(name, coins(up[name].apply(params[name], h)))

    def top_down(params: Params, context: None, site: Callable[..., Any]) -> None:
        z = site(names[-1], coins(params["top"]))
        for name in names[-2::-1]:
            z = site(name, coins(down[name].apply(params["prior"][name], z)))

    def guide(params: Params, x: Array) -> Program:
        check_shape(x, x_shape)
        return Program(params["guide"], as_float(x), bottom_up)

    def prior(params: Params, x: Any) -> Program:
        return Program({"top": params["top"], "prior": params["prior"]}, None, top_down)

    return from_emission(
        init, guide, prior, pixels, kl="half_closed", h_of=lambda x, z: as_float(z["z1"])
    )
