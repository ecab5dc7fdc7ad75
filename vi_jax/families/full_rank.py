"""The Gaussian with a full covariance, by its triangular factor."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import fill_tril
from vi_jax.types import Array, Family, Params


def full_rank(example: Any) -> Family:
    """q(z) = N(z | mu, L L'), z = mu + L eps, L lower triangular with diagonal e^l (Titsias &
    Lazaro-Gredilla 2014, sec. 2; Kucukelbir et al. 2017, eq. 6).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.

    Returns:
      A Family whose parameters are {"loc": [D], "log_diag": [D], "lower": [D (D - 1) / 2]} (`lower`
      is the strict lower triangle by rows); zeros are the standard normal.

    Raises:
      ValueError: there are no latents, or some are not real.
    """
    latents = read_latents("full_rank", example)

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        num_lower = latents.size * (latents.size - 1) // 2
        return {
            "loc": jnp.zeros(latents.size),
            "log_diag": jnp.zeros(latents.size),
            "lower": jnp.zeros(num_lower),
        }

    def guide(params: Params) -> Any:
        scale_tril = fill_tril(params["log_diag"], params["lower"])
        return latents.wrap(dist.MultivariateNormal(params["loc"], scale_tril=scale_tril))

    return Family(init, guide)
