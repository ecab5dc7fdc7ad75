"""The inverse autoregressive flow (IAF): fast samples."""

from collections.abc import Sequence
from typing import Any

from vi_jax.families._autoregressive import MaskedAffine, make_autoregressive
from vi_jax.families._flow import Bijection
from vi_jax.types import Array, Family, Params


def iaf(example: Any, *, num_layers: int = 4, hidden: Sequence[int] = (32, 32)) -> Family:
    """y_i = x_i exp(s_i(x_<i)) + t_i(x_<i), log |det| = sum s (Kingma et al. 2016, eq. 10 and 11),
    s and t by a masked network.

    Samples and their densities are one pass (`sample_and_log_prob`); the density of another z is D
    passes: take `maf` where that is what is needed. Each layer then turns the order of the entries
    round. s is 3 tanh(./3) of the network's output, in place of the gate of their eq. 14.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L.
      hidden: widths of the masked network.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers"}; an encoder puts out the base,
      the layers are shared.

    Raises:
      ValueError: there are no latents, some are not real, there are no layers, or a width is not
        positive.
    """
    return make_autoregressive("iaf", example, _layer, num_layers=num_layers, hidden=hidden)


def _layer(affine: MaskedAffine) -> Bijection:
    """The map in the direction that is one pass, then the order of the entries turned round."""

    def forward(params: Params, x: Array) -> tuple[Array, Array]:
        y, log_det = affine.parallel(params, x)
        return y[::-1], log_det

    def inverse(params: Params, y: Array) -> tuple[Array, Array]:
        return affine.sequential(params, y[::-1])

    return Bijection(forward, inverse)
