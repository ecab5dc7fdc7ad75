"""The Gaussian whose precision is diagonal plus a matrix of rank one."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import HALF_LOG_TWO_PI, VectorGuide, log_standard_normal
from vi_jax.types import Array, Family, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RankOnePrecision(VectorGuide):
    """N(mu, C) with C^-1 = diag(e^(-2 log_scale)) + u u'; everything O(D)."""

    loc: Array  # [D]
    log_scale: Array  # [D], of D^-1/2
    u: Array  # [D]

    is_gaussian: ClassVar[bool] = True

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def covariance_matrix(self) -> Array:
        """C = D^-1 - eta D^-1 u u' D^-1 with eta = 1 / (1 + u' D^-1 u) (eq. 18), [D, D]."""
        v = jnp.exp(2.0 * self.log_scale) * self.u
        return jnp.diag(jnp.exp(2.0 * self.log_scale)) - jnp.outer(v, v) / self._root() ** 2

    @property
    def variance(self) -> Array:
        """The diagonal of C, [D]."""
        v = jnp.exp(2.0 * self.log_scale) * self.u
        return jnp.exp(2.0 * self.log_scale) - (v / self._root()) ** 2

    def entropy(self) -> Array:
        """D/2 log(2 pi e) + 1/2 log det C, nats."""
        return self.loc.size * (0.5 + HALF_LOG_TWO_PI) + self._half_log_det()

    def _half_log_det(self) -> Array:
        """1/2 log det C, by log det C = log eta - log det D (eq. 19)."""
        return self.log_scale.sum() - jnp.log(self._root())

    def _root(self) -> Array:
        """sqrt(1 + u' D^-1 u) = eta^-1/2."""
        return jnp.sqrt(1.0 + jnp.sum((jnp.exp(self.log_scale) * self.u) ** 2))

    def transport(self, eps: Array) -> Array:
        # eq. 20: R = D^-1/2 - [(1 - sqrt(eta)) / (u' D^-1 u)] D^-1 u u' D^-1/2; with s = eta^-1/2
        # the bracket is 1 / (s (s + 1)), which is not 0 / 0 at u = 0
        scale = jnp.exp(self.log_scale)
        s = self._root()
        return (
            self.loc
            + scale * eps
            - scale**2 * self.u * (jnp.sum(self.u * scale * eps) / (s * (s + 1.0)))
        )

    def log_density(self, z: Array) -> Array:
        gap = z - self.loc
        return (
            log_standard_normal(gap * jnp.exp(-self.log_scale))
            - 0.5 * jnp.sum(self.u * gap) ** 2
            - self._half_log_det()
        )


def rank_one_precision(example: Any) -> Family:
    """q(z) = N(z | mu, C), C^-1 = D + u u', z = mu + R eps with R R' = C (Rezende et al. 2014, eq.
    17 to 20).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.

    Returns:
      A Family whose parameters are {"loc": [D], "log_scale": [D], "u": [D]} with D = diag(e^(-2
      log_scale)); zeros are the standard normal. The density is even in u, so that u = 0 has no
      gradient: `init` draws a small u.

    Raises:
      ValueError: there are no latents, or some are not real.
    """
    latents = read_latents("rank_one_precision", example)

    def init(key: Array) -> Params:
        zeros = jnp.zeros(latents.size)
        return {
            "loc": zeros,
            "log_scale": zeros,
            "u": 0.1 * jax.random.normal(key, (latents.size,)),
        }

    def guide(params: Params) -> Any:
        return latents.wrap(RankOnePrecision(params["loc"], params["log_scale"], params["u"]))

    return Family(init, guide)
