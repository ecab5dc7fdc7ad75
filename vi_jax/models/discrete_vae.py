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

_SPREAD = 1.0  # standard deviation of a logit of the guide over the data, at the start
_LEAST_SPREAD = 1e-5


def discrete_vae(
    x_shape: Sequence[int],
    *,
    num_latents: int = 200,
    hidden: Sequence[int] = (),
    activation: Callable[[Array], Array] = nn.leaky_relu,
    likelihood: Likelihood | None = None,
    rows: Any = None,
    output_bias: Any = None,
) -> Model:
    """z in {0, 1}^D with learned logits of the prior, networks both ways (Dong et al. 2020, sec. 4:
    200 latents; linear, or two hidden layers of 200).

    Coins whose logits start near 0 say nothing of x: they come to their prior before the decoder
    has learned to read them, and nothing is learned from there. Give `rows`, over which the logits
    start spread.

    Train it by `losses.negative_bound` with `disarm`, `rebar` or `score` (ELBO) or `vimco` (IWAE);
    log p(x | z) is smooth in z between 0 and 1, as `rebar` asks.

    Args:
      x_shape: of one example.
      num_latents: D.
      hidden: widths from x towards z; none for linear layers.
      activation: between layers.
      likelihood: of x given z; Bernoulli if not given.
      rows: [N, *x_shape], some of the data: each logit of the guide starts with mean 0 and standard
        deviation 1 over them. If not given, near 0.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"encoder", "prior", "decoder", "likelihood"}.

    Raises:
      ValueError: no latents, or rows of another shape.
    """
    x_shape = tuple(x_shape)
    if num_latents < 1:
        raise ValueError(f"discrete_vae expects num_latents of at least 1; got {num_latents}.")
    if rows is not None and jnp.shape(rows)[1:] != x_shape:
        raise ValueError(
            f"discrete_vae expects rows of shape [N, {', '.join(map(str, x_shape))}]; got "
            f"{jnp.shape(rows)}."
        )
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
        start = encoder.init(key_encoder)
        return {
            "encoder": start if rows is None else _spread(encoder, start, rows),
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


def _spread(encoder: networks.Network, params: Params, rows: Any) -> Params:
    """The encoder's last layer shifted and scaled so that each output has mean 0 and standard
    deviation `_SPREAD` over the rows.
    """
    outputs = jax.vmap(lambda x: encoder.apply(params, as_float(x)))(jnp.asarray(rows))
    spread = jnp.std(outputs, 0)
    # rows that do not differ, but for rounding, leave the scale as it is
    is_spread = spread > _LEAST_SPREAD
    factor = jnp.where(is_spread, _SPREAD / jnp.where(is_spread, spread, 1.0), 1.0)
    last = max(params, key=lambda name: int(name.removeprefix("Dense_")))
    kernel = params[last]["kernel"] * factor
    bias = (params[last]["bias"] - jnp.mean(outputs, 0)) * factor
    return {**params, last: {"kernel": kernel, "bias": bias}}
