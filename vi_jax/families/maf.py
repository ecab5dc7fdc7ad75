"""The masked autoregressive flow."""

from collections.abc import Sequence
from typing import Any

from vi_jax.families._autoregressive import MaskedAffine, init_masked
from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._networks import check_hidden
from vi_jax.types import Array, Family, Params


def maf(example: Any, *, num_layers: int = 4, hidden: Sequence[int] = (32, 32)) -> Family:
    """x_i = z_i exp(s_i(z_<i)) + t_i(z_<i) from z back to the base, log |det dz/dx| = -sum s
    (Papamakarios et al. 2017, eq. 4 and 5, where s is -alpha and t is -mu exp(-alpha)).

    The density of any z is one pass; a draw is D passes: take `iaf` where draws are what is asked.
    Each layer then turns the order of the entries round. s is 3 tanh(./3) of the network's output.

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
    check_hidden("maf", hidden)

    def make_layer(size: int) -> Bijection:
        affine = MaskedAffine(size, hidden)

        def forward(params: Params, x: Array) -> tuple[Array, Array]:
            z, log_det = affine.sequential(params, x)
            return z[::-1], -log_det

        def inverse(params: Params, z: Array) -> tuple[Array, Array]:
            x, log_det = affine.parallel(params, z[::-1])
            return x, -log_det

        return Bijection(forward, inverse)

    def init_layer(key: Array, size: int) -> Params:
        return init_masked(key, size, hidden)

    return make_family(
        "maf", example, init_layer, make_layer, num_layers=num_layers, shared=("layers",)
    )
