"""The variational auto-encoder: one layer of latents, an encoder that amortises any family, a
decoder, a likelihood.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax import families
from vi_jax.models import architectures, likelihoods
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._kl import KL
from vi_jax.models._layers import as_float, standard_normal
from vi_jax.models.architectures import Architecture
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Family, Model, Params, Prior


def amortised(
    x_shape: Sequence[int],
    encoder: Callable[[int], Network],
    decoder: Callable[[int], Network],
    family: Family,
    likelihood: Likelihood,
    *,
    num_latents: int,
    input_scale: float = 1.0,
    prior: Prior | None = None,
    kl: KL = "closed",
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
      prior: p(z); the standard normal if not given. See `vi_jax.models.priors`.
      kl: see `from_densities`; most priors with parameters expect "drawn" or "entropy".

    Returns:
      A Model of parameters {"encoder", "decoder", "likelihood"}, with "guide" where the family has
      parameters of its own, and "prior" where a prior is given.
    """
    x_shape = tuple(x_shape)
    num_encoder_outputs, guide_params = amortised_form(family)
    encode_network = encoder(num_encoder_outputs)
    pixels = emission(x_shape, decoder(likelihood.num_outputs), likelihood)

    def init(key: Array) -> Params:
        num_keys = 3 if prior is None else 4
        key_encoder, key_decoder, key_guide, *key_prior = jax.random.split(key, num_keys)
        params = {"encoder": encode_network.init(key_encoder), **pixels.init(key_decoder)}
        if family.shared is not None:
            params["guide"] = family.init(key_guide)
        if prior is not None:
            params["prior"] = prior.init(*key_prior)
        return params

    def guide(params: Params, x: Array) -> Any:
        check_shape(x, x_shape)
        row = encode_network.apply(params["encoder"], input_scale * as_float(x))
        return family.guide(guide_params(params.get("guide"), row))

    def make_prior(params: Params, x: Array) -> Any:
        if prior is None:
            return standard_normal(num_latents)
        return prior.make(params["prior"], x, lambda x: guide(params, x))

    return from_emission(init, guide, make_prior, pixels, kl=kl)


def vae(
    x_shape: Sequence[int],
    *,
    num_latents: int,
    network: Architecture | None = None,
    hidden: Sequence[int] = (500,),
    activation: Callable[[Array], Array] = nn.tanh,
    likelihood: Likelihood | None = None,
    family: Callable[[int], Family] = families.mean_field,
    output_bias: Any = None,
    prior: Prior | None = None,
    kl: KL = "closed",
    dtype: Any = None,
) -> Model:
    """The VAE of Kingma & Welling (2013), appendix C, with any network, family, likelihood and
    prior.

    Args:
      x_shape: of one example, without a batch axis; any rank.
      num_latents: D.
      network: encoder and decoder; `architectures.mlp(hidden, activation)` if not given.
      hidden: widths from x towards z of that; the decoder is the encoder's mirror.
      activation: between its layers.
      likelihood: of x given z; Bernoulli if not given.
      family: num_latents -> Family; mean-field Gaussian if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.
      prior, kl: see `amortised`.
      dtype: of the activations; `jnp.bfloat16` for mixed precision, see `networks`. Densities and
        the KL stay float32.

    Returns:
      A Model.

    Raises:
      ValueError: a size is not positive.
    """
    if num_latents < 1 or math.prod(x_shape) < 1:
        raise ValueError(
            f"vae expects positive sizes; got x_shape {tuple(x_shape)}, num_latents {num_latents}."
        )
    shape = tuple(x_shape)
    pair = network or architectures.mlp(hidden, activation)
    of_x = likelihoods.bernoulli() if likelihood is None else likelihood
    return amortised(
        shape,
        lambda num_outputs: pair.encoder(shape, num_outputs, dtype),
        lambda num_outputs: pair.decoder(shape, num_outputs, num_latents, output_bias, dtype),
        family(num_latents),
        of_x,
        num_latents=num_latents,
        input_scale=of_x.scale,
        prior=prior,
        kl=kl,
    )


def amortised_form(family: Family) -> tuple[int, Callable[[Params, Array], Params]]:
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
        if own is None:
            return put_out
        moved = {name: jax.tree.map(jnp.add, own[name], put_out[name]) for name in put_out}
        return {**own, **moved}

    return row.size, guide_params
