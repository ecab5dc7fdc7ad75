"""Masked affine autoregressive flows: y_i = x_i exp(s_i(x_<i)) + t_i(x_<i), one pass, and the
inverse, one pass an entry.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._networks import (
    apply_network,
    autoregressive_masks,
    check_hidden,
    init_network,
)
from vi_jax.types import Array, Family, Params


class MaskedAffine:
    """The map for D latents and hidden widths; s is 3 tanh(./3) of the network's output, which
    bounds a layer's stretch at e^3.
    """

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        self.masks = autoregressive_masks(size, hidden, 2)
        self.size = size

    def shift_and_log_stretch(self, params: Params, x: Array) -> tuple[Array, Array]:
        shift, raw = jnp.split(apply_network(params, x, self.masks), 2)
        return shift, 3.0 * jnp.tanh(raw / 3.0)

    def parallel(self, params: Params, x: Array) -> tuple[Array, Array]:
        """y of x, and log |det dy/dx|."""
        shift, log_stretch = self.shift_and_log_stretch(params, x)
        return x * jnp.exp(log_stretch) + shift, log_stretch.sum()

    def sequential(self, params: Params, y: Array) -> tuple[Array, Array]:
        """x of y, entry by entry, and log |det dy/dx| there."""

        def entry(x: Array, i: Array) -> tuple[Array, None]:
            shift, log_stretch = self.shift_and_log_stretch(params, x)
            return x.at[i].set((y[i] - shift[i]) * jnp.exp(-log_stretch[i])), None

        x, _ = jax.lax.scan(entry, jnp.zeros_like(y), jnp.arange(self.size))
        return x, self.shift_and_log_stretch(params, x)[1].sum()


def make_autoregressive(
    name: str,
    example: Any,
    layer_of: Callable[[MaskedAffine], Bijection],
    *,
    num_layers: int,
    hidden: Sequence[int],
) -> Family:
    """The family of flows of layers that are made of a masked affine map each, the identity at the
    start; an encoder puts out the base, the layers are shared.

    Args:
      name, example: of the family, and its latents.
      layer_of: a masked affine map -> the layer.
      num_layers: L.
      hidden: widths of the masked network.

    Raises:
      ValueError: there are no latents, some are not real, there are no layers, or a width is not
        positive.
    """
    check_hidden(name, hidden)

    def init_layer(key: Array, size: int) -> Params:
        return init_network(key, (size, *hidden, 2 * size))

    def make_layer(size: int) -> Bijection:
        return layer_of(MaskedAffine(size, hidden))

    return make_family(
        name,
        example,
        init_layer,
        make_layer,
        num_layers=num_layers,
        shared=("layers",),
        options={"hidden": tuple(int(width) for width in hidden)},
    )
