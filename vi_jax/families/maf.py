"""The masked autoregressive flow (MAF): fast densities."""

from collections.abc import Sequence
from typing import Any

from vi_jax.families._autoregressive import MaskedAffine, make_autoregressive
from vi_jax.families._flow import Bijection
from vi_jax.types import Array, Family, Params


def maf(example: Any, *, num_layers: int = 4, hidden: Sequence[int] = (32, 32)) -> Family:
    """x_i = z_i exp(s_i(z_<i)) + t_i(z_<i) from z back to the base, log |det dz/dx| = -sum s
    (Papamakarios et al. 2017, eq. 4 and 5, where s is -alpha and t is -mu exp(-alpha)).

    The density of any z is one pass; a sample is D passes: take `iaf` where samples are what is
    needed. Each layer then turns the order of the entries round. s is 3 tanh(./3) of the network's
    output.

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
    return make_autoregressive("maf", example, _layer, num_layers=num_layers, hidden=hidden)


def _layer(affine: MaskedAffine) -> Bijection:
    """The inverse of the map, one pass from z to the base, then the order turned round."""

    def forward(params: Params, x: Array) -> tuple[Array, Array]:
        z, log_det = affine.sequential(params, x)
        return z[::-1], -log_det

    def inverse(params: Params, z: Array) -> tuple[Array, Array]:
        x, log_det = affine.parallel(params, z[::-1])
        return x, -log_det

    return Bijection(forward, inverse)
