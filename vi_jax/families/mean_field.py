"""The Gaussian with a diagonal covariance."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.families._pytree import read_latents
from vi_jax.types import Array, Family, Params


def mean_field(example: Any) -> Family:
    """q(z) = prod_j N(z_j | mu_j, sigma_j^2), z = mu + sigma eps (Kingma & Welling 2013, eq. 9).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.

    Returns:
      A Family whose parameters are {"loc": [D], "log_scale": [D]}; zeros are the standard normal.

    Raises:
      ValueError: there are no latents, or some are not real.
    """
    latents = read_latents("mean_field", example)

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        return {"loc": jnp.zeros(latents.size), "log_scale": jnp.zeros(latents.size)}

    def guide(params: Params) -> Any:
        return latents.wrap(dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1))

    return Family(init, guide)
