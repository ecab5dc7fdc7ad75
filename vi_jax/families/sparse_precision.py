"""The Gaussian with a sparse precision, by the precision's sparse Cholesky factor."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import VectorGuide, log_standard_normal
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse import order as ordering
from vi_jax.sparse.arrow import Arrow, Blocks
from vi_jax.types import Array, Family, Params


class Sparsity(NamedTuple):
    """An order of elimination, and the entries of the factor that are not zero in it; hashable."""

    arrow: Arrow
    rows: tuple[int, ...]  # places of the entries below the diagonal [M]
    columns: tuple[int, ...]

    @property
    def lower_index(self) -> np.ndarray:
        """Where those entries lie in the arrays of `Blocks` laid in one."""
        return blocked.flat_index(self.arrow, np.array(self.rows, int), np.array(self.columns, int))

    @property
    def diagonal_index(self) -> np.ndarray:
        """Where the diagonal's [D] lies there."""
        places = self.arrow.places
        return blocked.flat_index(self.arrow, places, places)

    def factor(self, log_diag: Array, lower: Array) -> Blocks:
        """L of its logarithmic diagonal [D], in the latents' order, and its other entries [M]."""
        flat = jnp.zeros(blocked.num_flat(self.arrow), log_diag.dtype)
        flat = flat.at[blocked.empty_slots(self.arrow)].set(1.0)
        flat = flat.at[self.diagonal_index].set(jnp.exp(log_diag))
        return blocked.to_blocks(self.arrow, flat.at[self.lower_index].set(lower))

    def entries(self, factor: Blocks) -> tuple[Array, Array]:
        """`log_diag` and `lower` of a factor."""
        flat = blocked.to_flat(factor)
        return jnp.log(flat[self.diagonal_index]), flat[self.lower_index]


def sparsity(pattern: np.ndarray) -> Sparsity:
    """The order and the fill-in of precisions with a pattern [D, D]."""
    arrow = ordering.arrange(pattern)
    rows, columns = ordering.fill(arrow, pattern)
    return Sparsity(arrow, tuple(rows.tolist()), tuple(columns.tolist()))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SparseNormal(VectorGuide):
    """N(mu, (L L')^-1), L lower triangular and sparse in an order of the latents of its own."""

    loc: Array  # [D]
    log_diag: Array  # [D], of L, in the order of the latents
    lower: Array  # [M], entries of L below its diagonal
    sparsity: Sparsity = field(metadata={"static": True})

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def factor(self) -> Blocks:
        """L."""
        return self.sparsity.factor(self.log_diag, self.lower)

    @property
    def covariance_matrix(self) -> Array:
        """(L L')^-1, [D, D]."""
        factor = self.factor
        eye = jnp.eye(self.loc.size, dtype=self.loc.dtype)
        root = jax.vmap(lambda e: blocked.solve_upper(self.sparsity.arrow, factor, e))(eye)
        return root.T @ root

    def transport(self, eps: Array) -> Array:
        return self.loc + blocked.solve_upper(self.sparsity.arrow, self.factor, eps)

    def log_density(self, z: Array) -> Array:
        eps = blocked.times_upper(self.sparsity.arrow, self.factor, z - self.loc)
        return log_standard_normal(eps) + self.log_diag.sum()


def sparse_precision(
    example: Any,
    *,
    pairs: Iterable[tuple[int, int]] | None = None,
    bandwidth: int = 1,
    border: int = 0,
) -> Family:
    """q(z) = N(z | mu, (L L')^-1) with a sparse precision L L': z_i and z_j are independent given
    the others unless they are a pair (Tan & Nott 2018). Samples and densities take O(1) operations
    for each entry of L, which is as sparse as a good order of the latents makes it.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      pairs: (i, j) of latents that may depend on each other given the rest, in the order of the
        latents laid in one vector; each touches itself. In place of `bandwidth` and `border`.
      bandwidth: latents that a latent depends on to either side.
      border: of the last latents, those that depend on all others.

    Returns:
      A Family whose parameters are {"loc": [D], "log_diag": [D], "lower": [M]}, of the
      *precision's* factor: a larger log_diag is a narrower guide. Zeros are the standard normal.

    Raises:
      ValueError: there are no latents, some are not real, or a number is out of range.
    """
    latents = read_latents("sparse_precision", example)
    size = latents.size
    found = sparsity(_read_pattern(size, pairs, bandwidth, border))

    def init(key: Array) -> Params:
        del key  # starts at the standard normal, whatever the key
        return {
            "loc": jnp.zeros(size),
            "log_diag": jnp.zeros(size),
            "lower": jnp.zeros(len(found.rows)),
        }

    def guide(params: Params) -> Any:
        q = SparseNormal(params["loc"], params["log_diag"], params["lower"], found)
        return latents.wrap(q)

    return Family(init, guide)


def _read_pattern(
    size: int, pairs: Iterable[tuple[int, int]] | None, bandwidth: int, border: int
) -> np.ndarray:
    """[D, D] bool."""
    where = np.arange(size)
    if pairs is None:
        if bandwidth < 0 or not 0 <= border <= size:
            raise ValueError(
                "sparse_precision expects a bandwidth of at least 0 and a border of 0 to "
                f"{size}; got {bandwidth} and {border}."
            )
        pattern = np.abs(where[:, None] - where) <= bandwidth
        last = where >= size - border
        return pattern | last | last[:, None]
    listed = np.array(list(pairs), int).reshape(-1, 2)
    if np.any(listed < 0) or np.any(listed >= size):
        raise ValueError(
            f"sparse_precision expects pairs of latents from 0 to {size - 1}; got "
            f"{listed[np.any((listed < 0) | (listed >= size), axis=1)][0].tolist()}."
        )
    pattern = np.eye(size, dtype=bool)
    pattern[listed[:, 0], listed[:, 1]] = True
    return pattern | pattern.T
