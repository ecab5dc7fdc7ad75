"""RealNVP, the affine coupling flow."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._networks import apply_network, check_hidden, init_network
from vi_jax.types import Array, Family, Params


def real_nvp(example: Any, *, num_layers: int = 6, hidden: Sequence[int] = (32, 32)) -> Family:
    """y_2 = x_2 exp(s(x_1)) + t(x_1), y_1 = x_1, log |det| = sum s (Dinh et al. 2017, eq. 4 and 5);
    x_1 the first half.

    Each layer then turns the order of the entries round, in place of alternating masks. s is 3
    tanh(./3) of a network's output, which bounds a layer's stretch at e^3. With D = 1 a layer is
    affine.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L; two move every entry.
      hidden: widths of the network of s and t.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers"}; an encoder puts out the base,
      the layers are shared.

    Raises:
      ValueError: there are no latents, some are not real, there are no layers, or a width is not
        positive.
    """
    check_hidden("real_nvp", hidden)

    def init_layer(key: Array, size: int) -> Params:
        return init_network(key, (size // 2, *hidden, 2 * (size - size // 2)))

    return make_family(
        "real_nvp",
        example,
        init_layer,
        lambda size: LAYER,
        num_layers=num_layers,
        shared=("layers",),
    )


def bounded(raw: Array) -> Array:
    """A log stretch within -3 and 3."""
    return 3.0 * jnp.tanh(raw / 3.0)


def _forward(params: Params, x: Array) -> tuple[Array, Array]:
    first = x[: x.size // 2]
    second = x[x.size // 2 :]
    shift, raw = jnp.split(apply_network(params, first), 2)
    log_stretch = bounded(raw)
    y = jnp.concatenate([first, second * jnp.exp(log_stretch) + shift])
    return y[::-1], log_stretch.sum()


def _inverse(params: Params, y: Array) -> tuple[Array, Array]:
    y = y[::-1]
    first = y[: y.size // 2]
    second = y[y.size // 2 :]
    shift, raw = jnp.split(apply_network(params, first), 2)
    log_stretch = bounded(raw)
    return jnp.concatenate([first, (second - shift) * jnp.exp(-log_stretch)]), log_stretch.sum()


LAYER = Bijection(_forward, _inverse)
