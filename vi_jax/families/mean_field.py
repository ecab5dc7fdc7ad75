"""The Gaussian with a diagonal covariance."""

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.types import Array, Family, Params


def family(num_latents: int) -> Family:
    """q(z) = prod_j N(z_j | mu_j, sigma_j^2), z = mu + sigma eps (Kingma & Welling 2013, eq. 9).

    Args:
      num_latents: D.

    Returns:
      A Family whose parameters are {"loc": [D], "log_scale": [D]}; zeros are the standard normal.

    Raises:
      ValueError: num_latents is not positive.
    """
    if num_latents < 1:
        raise ValueError(f"mean_field wants num_latents of at least 1; got {num_latents}.")

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        return {"loc": jnp.zeros(num_latents), "log_scale": jnp.zeros(num_latents)}

    def guide(params: Params) -> dist.Independent:
        return dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)

    return Family(init, guide)
