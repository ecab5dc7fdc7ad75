"""The Gaussian with a full covariance within each leaf of a pytree, and none between leaves."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import VectorGuide, fill_tril, log_standard_normal
from vi_jax.types import Array, Family, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockNormal(VectorGuide):
    """N(mu, diag(L_1 L_1', ..., L_M L_M'))."""

    loc: Array  # [D]
    log_diag: Array  # [D]
    lower: tuple[Array, ...]  # the strict lower triangle of each block by rows

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def covariance_matrix(self) -> Array:
        """[D, D], mostly zeros."""
        return linalg.block_diag(*[tril @ tril.T for tril in self._trils()])

    def _sizes(self) -> list[int]:
        return [
            (1 + int(np.sqrt(1 + 8 * lower.shape[0]))) // 2 if lower.shape[0] else 1
            for lower in self.lower
        ]

    def _split(self, vector: Array) -> list[Array]:
        return jnp.split(vector, np.cumsum(self._sizes())[:-1])

    def _trils(self) -> list[Array]:
        return [
            fill_tril(log_diag, lower)
            for log_diag, lower in zip(self._split(self.log_diag), self.lower, strict=True)
        ]

    def transport(self, eps: Array) -> Array:
        return self.loc + jnp.concatenate(
            [tril @ part for tril, part in zip(self._trils(), self._split(eps), strict=True)]
        )

    def log_density(self, z: Array) -> Array:
        parts = zip(self._trils(), self._split(z - self.loc), strict=True)
        eps = jnp.concatenate(
            [linalg.solve_triangular(tril, part, lower=True) for tril, part in parts]
        )
        return log_standard_normal(eps) - self.log_diag.sum()


def block_diagonal(example: Any) -> Family:
    """q(z) = prod_m N(z_m | mu_m, L_m L_m'), m over the leaves: full rank where a leaf's entries
    are correlated, at the cost of sum_m D_m^2 and not D^2 (the blocks of Titsias & Lazaro-Gredilla
    2014; structured mean field).

    Args:
      example: a pytree of arrays like the latents, one block a leaf; or D, for one block, which is
        `full_rank`.

    Returns:
      A Family whose parameters are {"loc": [D], "log_diag": [D], "lower": a tuple of [D_m (D_m - 1)
      / 2]}; zeros are the standard normal.

    Raises:
      ValueError: there are no latents, or some are not real.
    """
    latents = read_latents("block_diagonal", example)
    sizes = (
        (latents.size,)
        if latents.layout is None
        else tuple(size for size in latents.layout.sizes if size)
    )

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        zeros = jnp.zeros(latents.size)
        return {
            "loc": zeros,
            "log_diag": zeros,
            "lower": tuple(jnp.zeros(size * (size - 1) // 2) for size in sizes),
        }

    def guide(params: Params) -> Any:
        return latents.wrap(BlockNormal(params["loc"], params["log_diag"], tuple(params["lower"])))

    return Family(init, guide)
