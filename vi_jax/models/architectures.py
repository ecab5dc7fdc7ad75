"""Pairs of an encoder and a decoder: the network of a VAE before its sizes are known."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from vi_jax.models import gated, networks
from vi_jax.models.networks import Activation, Network

__all__ = ["Architecture", "conv", "gated_mlp", "mlp"]


class Architecture(NamedTuple):
    """How an example is encoded, and decoded again."""

    # (x_shape, num_outputs, dtype) -> Network from x [*x_shape] to [num_outputs]
    encoder: Callable[[tuple[int, ...], int, Any], Network]
    # (x_shape, num_outputs, num_latents, output_bias, dtype) -> Network from z [D] to [*x_shape,
    # num_outputs]; `output_bias` [*x_shape, num_outputs] or None is where the last bias starts
    decoder: Callable[[tuple[int, ...], int, int, Any, Any], Network]


def mlp(hidden: Sequence[int] = (500,), activation: Activation = nn.tanh) -> Architecture:
    """Dense layers both ways, the decoder the encoder's mirror (Kingma & Welling 2013, appendix C).

    Args:
      hidden: widths from x towards z.
      activation: between layers.

    Raises:
      ValueError: `hidden` holds what is no width.
    """
    widths = _widths(hidden)

    def encoder(x_shape: tuple[int, ...], num_outputs: int, dtype: Any) -> Network:
        return networks.mlp_encoder(x_shape, num_outputs, widths, activation, dtype=dtype)

    def decoder(
        x_shape: tuple[int, ...], num_outputs: int, num_latents: int, output_bias: Any, dtype: Any
    ) -> Network:
        mirror = widths[::-1]
        return networks.mlp_decoder(
            x_shape, num_outputs, num_latents, mirror, activation, output_bias, dtype=dtype
        )

    return Architecture(encoder, decoder)


def gated_mlp(hidden: Sequence[int] = (300, 300)) -> Architecture:
    """Gated dense layers both ways, (W h + b) * sigmoid(V h + c) (Tomczak & Welling 2018, sec.
    5.1).

    Args:
      hidden: widths from x towards z.

    Raises:
      ValueError: `hidden` holds what is no width.
    """
    widths = _widths(hidden)

    def encoder(x_shape: tuple[int, ...], num_outputs: int, dtype: Any) -> Network:
        return gated.gated_mlp_encoder(x_shape, num_outputs, widths, dtype=dtype)

    def decoder(
        x_shape: tuple[int, ...], num_outputs: int, num_latents: int, output_bias: Any, dtype: Any
    ) -> Network:
        mirror = widths[::-1]
        return gated.gated_mlp_decoder(
            x_shape, num_outputs, num_latents, mirror, output_bias, dtype=dtype
        )

    return Architecture(encoder, decoder)


def conv(hidden: Sequence[int] = (32, 64), activation: Activation = nn.gelu) -> Architecture:
    """3x3 convolutions of stride 2 both ways, for images [H, W] or [H, W, C]; the decoder starts at
    its own bias, whatever the mean image.

    Args:
      hidden: channels from x towards z.
      activation: between layers.

    Raises:
      ValueError: `hidden` holds what is no width.
    """
    widths = _widths(hidden)

    def encoder(x_shape: tuple[int, ...], num_outputs: int, dtype: Any) -> Network:
        return networks.conv_encoder(x_shape, num_outputs, widths, activation, dtype=dtype)

    def decoder(
        x_shape: tuple[int, ...], num_outputs: int, num_latents: int, output_bias: Any, dtype: Any
    ) -> Network:
        del output_bias
        mirror = widths[::-1]
        return networks.conv_decoder(
            x_shape, num_outputs, num_latents, mirror, activation, dtype=dtype
        )

    return Architecture(encoder, decoder)


def _widths(hidden: Sequence[int]) -> tuple[int, ...]:
    is_sequence = isinstance(hidden, list | tuple)
    if not is_sequence or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(
            "hidden has to be positive sizes, whole numbers such as (500,) or (32, 64); got "
            f"{hidden!r}."
        )
    return tuple(hidden)
