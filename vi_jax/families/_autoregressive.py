"""The masked affine map y_i = x_i exp(s_i(x_<i)) + t_i(x_<i), one pass, and its inverse, one pass
an entry.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vi_jax.families._networks import apply_network, autoregressive_masks, init_network
from vi_jax.types import Array, Params


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


def init_masked(key: Array, size: int, hidden: Sequence[int]) -> Params:
    """Parameters at which the map is the identity."""
    return init_network(key, (size, *hidden, 2 * size))
