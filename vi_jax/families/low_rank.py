"""The Gaussian with a covariance of low rank plus diagonal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import HALF_LOG_TWO_PI, over_leading
from vi_jax.types import Array, Family, Params


class LowRankNormal(dist.LowRankMultivariateNormal):
    """numpyro's, with a density that keeps its digits in float32 where the factor is large beside
    the diagonal.

    With y = S^-1 (z - mu), V = S^-1 W and S^2 the diagonal, the squared distance is y'(I + V V')^-1
    y = |y - V a|^2 + |a|^2 with a = (I + V'V)^-1 V'y: a sum of squares, where Woodbury's formula
    subtracts two large numbers.
    """

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        del intermediates
        scale = jnp.sqrt(self.cov_diag)
        scaled = self.cov_factor / scale[:, None]  # V

        def one(z: Array) -> Array:
            y = (z - self.loc) / scale
            a = linalg.cho_solve((self._capacitance_tril, True), scaled.T @ y)
            return -0.5 * (jnp.sum((y - scaled @ a) ** 2) + jnp.sum(a**2))

        half_log_det = jnp.log(scale).sum() + jnp.log(jnp.diagonal(self._capacitance_tril)).sum()
        return (
            over_leading(one, jnp.asarray(value)) - half_log_det - self.loc.size * HALF_LOG_TWO_PI
        )


def low_rank(example: Any, *, rank: int = 1) -> Family:
    """q(z) = N(z | mu, diag(sigma^2) + W W'), z = mu + W eps_1 + sigma eps_2 (Ong et al. 2018, sec.
    2), O(D R^2).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      rank: R, columns of W; R = D and more is allowed, and full rank is then cheaper.

    Returns:
      A Family whose parameters are {"loc": [D], "log_scale": [D], "factor": [D, R]}; zeros are the
      standard normal. There the mean gradient in W is 0 (a saddle), so that `init` draws a small W.

    Raises:
      ValueError: there are no latents, some are not real, or the rank is not positive.
    """
    latents = read_latents("low_rank", example)
    if rank < 1:
        raise ValueError(f"low_rank expects a rank of at least 1; got {rank}.")

    def init(key: Array) -> Params:
        zeros = jnp.zeros(latents.size)
        return {
            "loc": zeros,
            "log_scale": zeros,
            "factor": 0.1 * jax.random.normal(key, (latents.size, rank)),
        }

    def guide(params: Params) -> Any:
        return latents.wrap(
            LowRankNormal(params["loc"], params["factor"], jnp.exp(2.0 * params["log_scale"]))
        )

    return Family(init, guide)
