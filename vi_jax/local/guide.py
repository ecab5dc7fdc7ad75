"""The guide of local latent variables, q(u) prod_n q(v_n | u), of all rows and of a batch."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpyro.distributions as dist

from vi_jax.kl.gaussians import is_diagonal, is_gaussian_vector
from vi_jax.local.guides import LocalGuides
from vi_jax.sampling import antithetic, quasi
from vi_jax.targets.local import LocalTarget
from vi_jax.types import Array, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LocalGuide:
    """q(u) prod_n q(v_n | u)."""

    shared: Any  # q(u), a guide over [D]
    params: Params  # of the table, leaves [N, ...], or of the encoder
    # [N] bool: rows that some batch has held; the guides of others in a table are as they began
    visited: Array
    guides: LocalGuides = field(metadata={"static": True})
    size: int = field(metadata={"static": True})  # d

    def of_rows(self, target: LocalTarget, u: Array, index: Array) -> Any:
        """q(v_n | u) of rows index [B], stacked: for `jax.vmap`."""
        entries = self.params
        if self.guides.table:
            entries = jax.tree.map(lambda leaf: leaf[index], entries)
        return stacked(self.guides, self.size, entries, target.rows(index), self.shared, u)

    def sample_rows(self, key: Array, target: LocalTarget, u: Array, index: Array) -> Array:
        """v [B, d] of rows index [B] given u."""
        keys = jax.random.split(key, len(index))
        return jax.vmap(lambda q, key: q.sample(key))(self.of_rows(target, u, index), keys)

    def weigh_rows(
        self, key: Array, target: LocalTarget, u: Array, index: Array, num: int
    ) -> Array:
        """log p(x_n, v | u) - log q(v | u) at `num` samples of each row of index [B], [num, B]
        nats; of diagonal and full Gaussians the samples of a row fill space evenly
        (quasi-Monte Carlo).
        """
        rows = self.of_rows(target, u, index)

        def of_row(q: Any, key: Array) -> tuple[Array, Array]:
            is_plain = is_diagonal(q) or isinstance(q, dist.MultivariateNormal)
            even = quasi(q) if is_plain else q
            v = even.sample(key, (num,))
            return v, jax.vmap(q.log_prob)(v)

        v, log_q = jax.vmap(of_row, out_axes=1)(rows, jax.random.split(key, len(index)))
        return jax.vmap(lambda v: target.log_rows(u, v, index))(v) - log_q


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchGuide:
    """q(u) and N / B times the rows of a batch, as a guide over (u [D], v [B, d]): log q is
    unbiased for that of all rows.
    """

    shared: Any
    params: Params  # [B, ...], or the encoder's
    rows: Any
    guides: LocalGuides = field(metadata={"static": True})
    size: int = field(metadata={"static": True})
    batch_size: int = field(metadata={"static": True})
    scale: float = field(metadata={"static": True})

    def _rows_given(self, u: Array) -> Any:
        return stacked(self.guides, self.size, self.params, self.rows, self.shared, u)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """u [*sample_shape, D] and v [*sample_shape, B, d]; of at most one axis of samples.

        An even number of u from a Gaussian are mirrored in pairs: what a batch says of theta's mean
        then cancels in the gradient of theta's scale, which it would send on a random walk where N
        / B is large.
        """
        key_u, key_v = jax.random.split(key)
        if not sample_shape:
            return self._one(self.shared.sample(key_u), key_v)
        shared = self.shared
        if is_gaussian_vector(shared) and sample_shape[0] % 2 == 0:
            shared = antithetic(shared)
        u = shared.sample(key_u, sample_shape)
        return jax.vmap(self._one)(u, jax.random.split(key_v, sample_shape))

    def _one(self, u: Array, key: Array) -> tuple[Array, Array]:
        keys = jax.random.split(key, self.batch_size)
        return u, jax.vmap(lambda q, key: q.sample(key))(self._rows_given(u), keys)

    def log_prob(self, value: tuple[Array, Array]) -> Array:
        """log q(u) + (N / B) sum_n log q(v_n | u)."""
        u, v = value
        log_rows = jax.vmap(lambda q, v: q.log_prob(v))(self._rows_given(u), v)
        return self.shared.log_prob(u) + self.scale * log_rows.sum()


def stacked(guides: LocalGuides, size: int, params: Params, rows: Any, q: Any, u: Array) -> Any:
    """The guides of a batch's rows, their leaves [B, ...]."""
    return jax.vmap(
        lambda params, row: guides.guide(size, params, row, q, u), (0 if guides.table else None, 0)
    )(params, rows)
