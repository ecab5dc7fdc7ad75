"""The bidirectional VAE of images, with latents at every pixel of smaller and smaller images."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from vi_jax.models import _residual, likelihoods
from vi_jax.models._emission import emission
from vi_jax.models.bidirectional_vae import Layer, of_layers, require_layers
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Model, Params


def conv_bidirectional_vae(
    x_shape: Sequence[int],
    *,
    num_latents: Sequence[int] = (4, 4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8),
    halvings: Sequence[int] = (1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2),
    width: int = 32,
    activation: Callable[[Array], Array] = nn.silu,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """`bidirectional_vae` with residual blocks of 3x3 convolutions and latents at every pixel of
    images that are halved on the way up (Child 2021; Vahdat & Kautz 2020), twelve layers by
    default.

    Args:
      x_shape: of one image, [H, W] or [H, W, C].
      num_latents: for each pixel of a layer, from x upwards; the sites are z1, z2, ...
      halvings: how often H and W are halved at each layer; it never falls, and rises by 1 at a
        time, from 0 or 1 on.
      width: channels of both paths.
      activation, likelihood, output_bias: see `bidirectional_vae`.

    Returns:
      A Model of parameters {"up", "top", "layers", "decoder", "likelihood"}.

    Raises:
      ValueError: a size is not positive, x_shape is no image, or `halvings` are not as said.
    """
    x_shape = tuple(x_shape)
    require_layers("conv_bidirectional_vae", num_latents, width)
    if len(x_shape) not in (2, 3):
        raise ValueError(
            "conv_bidirectional_vae expects images [H, W] or [H, W, C]; got x_shape "
            f"{x_shape}. Take bidirectional_vae."
        )
    halvings = tuple(halvings)
    _check_halvings(halvings, len(num_latents))
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    block = _residual.residual(_residual.conv, width, activation, gain=len(num_latents) ** -0.5)
    channels = 1 if len(x_shape) == 2 else x_shape[2]
    layers = []
    before = 0
    for number, (size, halved) in enumerate(zip(num_latents, halvings, strict=True)):
        inputs = channels if number == 0 else width
        up = [block]
        down = [block]
        if number == 0 or halved > before:
            up = [_residual.conv(inputs, width, stride=1 + (halved > before)), block]
        if halved > before:
            down = [block, _residual.doubled(_halved(x_shape, before))]
        if number == 0:
            up = [_residual.pure(lambda x: x.reshape(*x_shape[:2], channels)), *up]
        layers.append(
            Layer(
                shape=(*_halved(x_shape, halved), width),
                latents=(*_halved(x_shape, halved), size),
                up=_residual.chain(*up),
                prior=_residual.dense(width, 2 * size, gain=0.1),
                guide=_residual.dense(2 * width, 2 * size, gain=0.1),
                merge=_residual.dense(size, width),
                down=_residual.chain(*down),
            )
        )
        before = halved
    decoder = _decoder(x_shape, channels * likelihood.num_outputs, width, block, output_bias)
    pixels = emission(x_shape, decoder, likelihood)
    return of_layers(x_shape, layers, pixels, scale=likelihood.scale)


def _decoder(
    x_shape: tuple[int, ...], num_outputs: int, width: int, block: Network, output_bias: Any
) -> Network:
    """h [H, W, width] -> [*x_shape, num_outputs], around `output_bias` where one is given."""
    network = _residual.chain(block, _residual.conv(width, num_outputs))
    offset = 0.0 if output_bias is None else output_bias

    def apply(params: Params, h: Array) -> Array:
        return network.apply(params, h).reshape(*x_shape, -1) + offset

    return Network(network.init, apply)


def _halved(x_shape: tuple[int, ...], times: int) -> tuple[int, int]:
    """Height and width, rounded up."""
    (height, width) = (math.ceil(size / 2**times) for size in x_shape[:2])
    return height, width


def _check_halvings(halvings: tuple[int, ...], num_layers: int) -> None:
    rises = [after - before for before, after in zip((0, *halvings), halvings, strict=False)]
    if len(halvings) != num_layers or any(rise not in (0, 1) for rise in rises):
        raise ValueError(
            "halvings are one number for each layer, from 0 or 1 on, each the one before or 1 more;"
            f" got {halvings} for {num_layers} layers."
        )
