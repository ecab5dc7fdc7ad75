"""The Gaussian with a full covariance, by its triangular factor."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vi_jax.types import Array, Family, Params


def family(num_latents: int) -> Family:
    """q(z) = N(z | mu, L L'), z = mu + L eps, L lower triangular with diagonal e^l (Titsias & Lazaro-Gredilla 2014, sec. 2;
    Kucukelbir et al. 2017, eq. 6).

    Args:
      num_latents: D.

    Returns:
      A Family whose parameters are {"loc": [D], "log_diag": [D], "lower": [D (D - 1) / 2]} (`lower` is the strict lower
      triangle by rows); zeros are the standard normal.

    Raises:
      ValueError: num_latents is not positive.
    """
    if num_latents < 1:
        raise ValueError(f"full_rank wants num_latents of at least 1; got {num_latents}.")
    rows, columns = np.tril_indices(num_latents, -1)

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        return {
            "loc": jnp.zeros(num_latents),
            "log_diag": jnp.zeros(num_latents),
            "lower": jnp.zeros(num_latents * (num_latents - 1) // 2),
        }

    def guide(params: Params) -> dist.MultivariateNormal:
        scale_tril = jnp.diag(jnp.exp(params["log_diag"])).at[rows, columns].set(params["lower"])
        return dist.MultivariateNormal(params["loc"], scale_tril=scale_tril)

    return Family(init, guide)
