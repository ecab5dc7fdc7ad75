"""The variational auto-encoder: one layer of latents, an encoder that amortises any family, a
decoder, a likelihood.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from vi_jax import families
from vi_jax.models import likelihoods, networks
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Family, Model, Params


def amortised(
    x_shape: Sequence[int],
    encoder: Callable[[int], Network],
    decoder: Callable[[int], Network],
    family: Family,
    likelihood: Likelihood,
    *,
    num_latents: int,
    input_scale: float = 1.0,
) -> Model:
    """p(z) p(x | z) with z ~ N(0, I) [D] and the guide q(z | x) whose parameters an encoder puts
    out.

    Args:
      x_shape: of one example, without a batch axis.
      encoder: num_outputs -> Network from x [*x_shape] to [num_outputs], the family's parameters
        laid in one row.
      decoder: num_outputs -> Network from z [D] to [*x_shape, num_outputs], the likelihood's
        outputs.
      family: of guides over z [D].
      likelihood: of x given the decoder's outputs.
      num_latents: D.
      input_scale: the encoder sees x times this; 1/255 where x is 8-bit levels.

    Returns:
      A Model of parameters {"encoder", "decoder", "likelihood"}, and "guide" where the family has
      parameters of its own.
    """
    x_shape = tuple(x_shape)
    num_encoder_outputs, guide_params = _amortised_form(family)
    encode_network = encoder(num_encoder_outputs)
    decode_network = decoder(likelihood.num_outputs)

    def init(key: Array) -> Params:
        key_encoder, key_decoder, key_guide = jax.random.split(key, 3)
        params = {
            "encoder": encode_network.init(key_encoder),
            "decoder": decode_network.init(key_decoder),
            "likelihood": likelihood.init(x_shape),
        }
        return params if family.shared is None else {**params, "guide": family.init(key_guide)}

    def check_shape(x: Array) -> None:
        if x.shape != x_shape:
            raise ValueError(
                f"this model wants one example of shape {x_shape}; got {x.shape}. vmap over a "
                "batch."
            )

    def encode(params: Params, x: Array) -> Any:
        check_shape(x)
        row = encode_network.apply(params["encoder"], input_scale * _as_float(x))
        return family.guide(guide_params(params.get("guide"), row))

    def prior(params: Params) -> dist.Independent:
        del params
        return dist.Normal(jnp.zeros(num_latents), jnp.ones(num_latents)).to_event(1)

    def decode(params: Params, z: Array) -> Any:
        return likelihood.make(params["likelihood"], decode_network.apply(params["decoder"], z))

    def log_lik(params: Params, x: Array, z: Array) -> Array:
        check_shape(x)
        # on flat pixels: the same numbers, and a CPU sums one axis faster than two
        outputs = decode_network.apply(params["decoder"], z).reshape(-1, likelihood.num_outputs)
        own = jax.tree.map(
            lambda leaf: leaf.ravel() if leaf.shape == x_shape else leaf, params["likelihood"]
        )
        return likelihood.make(own, outputs).log_prob(x.ravel()).sum()

    def refit(params: Params, x: Array, z: Array) -> Params:
        means = jax.vmap(jax.vmap(lambda z: decode(params, z).mean))(z)  # [B, K, *x_shape]
        own = likelihood.refit(params["likelihood"], x, means)  # type: ignore[misc]
        return {**params, "likelihood": own}

    return Model(init, encode, prior, decode, log_lik, refit if likelihood.refit else None)


def vae(
    x_shape: Sequence[int],
    *,
    num_latents: int,
    hidden: Sequence[int] = (500,),
    activation: Callable[[Array], Array] = nn.tanh,
    likelihood: Likelihood | None = None,
    family: Callable[[int], Family] = families.mean_field,
    output_bias: Any = None,
    dtype: Any = None,
) -> Model:
    """The VAE of Kingma & Welling (2013), appendix C: dense layers both ways, the decoder the
    encoder's mirror.

    Args:
      x_shape: of one example, without a batch axis; any rank.
      num_latents: D.
      hidden: widths from x towards z.
      activation: between layers.
      likelihood: of x given z; Bernoulli if not given.
      family: num_latents -> Family; mean-field Gaussian if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      dtype: of the activations; `jnp.bfloat16` for mixed precision, see `networks`. Densities and
        the KL stay float32.

    Returns:
      A Model.
    """
    if num_latents < 1 or not all(width > 0 for width in hidden) or math.prod(x_shape) < 1:
        raise ValueError(
            f"vae wants positive sizes; got x_shape {tuple(x_shape)}, num_latents {num_latents}, "
            f"hidden {tuple(hidden)}."
        )
    return amortised(
        x_shape,
        lambda num_outputs: networks.mlp_encoder(
            x_shape, num_outputs, hidden, activation, dtype=dtype
        ),
        lambda num_outputs: networks.mlp_decoder(
            x_shape,
            num_outputs,
            num_latents,
            tuple(hidden)[::-1],
            activation,
            output_bias,
            dtype=dtype,
        ),
        family(num_latents),
        likelihoods.bernoulli() if likelihood is None else likelihood,
        num_latents=num_latents,
    )


def _amortised_form(family: Family) -> tuple[int, Callable[[Params, Array], Params]]:
    """The number of parameters that an encoder puts out, and (the family's own parameters or None,
    that row) -> the guide's.
    """
    template = jax.eval_shape(lambda: family.init(jax.random.key(0)))
    if family.shared is not None:
        template = {name: leaf for name, leaf in template.items() if name not in family.shared}
    row, unravel = ravel_pytree(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template)
    )

    def guide_params(own: Params, row: Array) -> Params:
        put_out = unravel(row)
        return (
            put_out
            if own is None
            else {
                **own,
                **{name: jax.tree.map(jnp.add, own[name], put_out[name]) for name in put_out},
            }
        )

    return row.size, guide_params


def _as_float(x: Array) -> Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
