"""The discrete VAE: one layer of Bernoulli latents."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._layers import as_float, coins
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params


def discrete_vae(
    x_shape: Sequence[int],
    *,
    num_latents: int = 200,
    hidden: Sequence[int] = (),
    activation: Callable[[Array], Array] = nn.leaky_relu,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """z in {0, 1}^D with learned logits of the prior, networks both ways (Dong et al. 2020, sec. 4:
    200 latents; linear, or two hidden layers of 200).

    Train it by `losses.negative_bound` with `disarm`, `rebar` or `score` (ELBO) or `vimco` (IWAE);
    log p(x | z) is smooth in z between 0 and 1, as `rebar` asks.

    Args:
      x_shape: of one example.
      num_latents: D.
      hidden: widths from x towards z; none for linear layers.
      activation: between layers.
      likelihood: of x given z; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"encoder", "prior", "decoder", "likelihood"}.
    """
    x_shape = tuple(x_shape)
    if num_latents < 1:
        raise ValueError(f"discrete_vae expects num_latents of at least 1; got {num_latents}.")
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    encoder = networks.mlp_encoder(x_shape, num_latents, hidden, activation)
    decoder = networks.mlp_decoder(
        x_shape,
        likelihood.num_outputs,
        num_latents,
        tuple(hidden)[::-1],
        activation,
        output_bias,
    )
    pixels = emission(x_shape, decoder, likelihood)

    def init(key: Array) -> Params:
        key_encoder, key_pixels = jax.random.split(key)
        return {
            "encoder": encoder.init(key_encoder),
            "prior": jnp.zeros(num_latents),
            **pixels.init(key_pixels),
        }

    def guide(params: Params, x: Array) -> Any:
        check_shape(x, x_shape)
        return coins(encoder.apply(params["encoder"], as_float(x)))

    return from_emission(
        init,
        guide,
        lambda params, x: coins(params["prior"]),
        pixels,
        kl="closed",
        h_of=lambda x, z: as_float(z),
    )
