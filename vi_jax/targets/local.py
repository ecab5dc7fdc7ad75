"""A target with local latent variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.targets._subsets import subset
from vi_jax.targets.target import Target
from vi_jax.targets.tracing import in_one_sentence
from vi_jax.types import Array, LogDensity


class LocalTarget(NamedTuple):
    """p(theta) prod_n p(x_n, z_n | theta) in unconstrained coordinates: theta of u [D], z_n of v_n
    [d], the log-determinants of both included. Rows are taken by their numbers, B at a time and no
    other number (a model may be written for B).
    """

    log_global: LogDensity  # u [D] -> log p(theta), nats
    # (u [D], v [B, d], index [B]) -> log p(x_n, z_n | theta), [B] nats
    log_rows: Callable[[Array, Array, Array], Array]
    constrain: Callable[[Array], Any]  # u [D] -> theta in the model's own space
    # (u [D], v [B, d], index [B]) -> z, leaves [B, ...]
    constrain_rows: Callable[[Array, Array, Array], Any]
    rows: Callable[[Array], Any]  # index [B] -> what an encoder reads, leaves [B, ...]
    names: tuple[str, ...]  # of the coordinates of u
    local_names: tuple[str, ...]  # of those of one v_n
    num_rows: int  # N
    batch_size: int  # B

    @property
    def size(self) -> int:
        """D, the number of unconstrained coordinates that all rows share."""
        return len(self.names)

    @property
    def local_size(self) -> int:
        """d, those of one row."""
        return len(self.local_names)

    @property
    def scale(self) -> float:
        """N / B, by which the sum over a batch stands for that over all rows."""
        return self.num_rows / self.batch_size

    def sample_index(self, key: Array) -> Array:
        """B different rows, each with probability B / N, [B] int32."""
        return subset(key, self.num_rows, self.batch_size)

    def batch_log_joint(self, u: Array, v: Array, index: Array) -> Array:
        """log p(theta) + (N / B) sum_{n in index} log p(x_n, z_n | theta): its mean over batches is
        the whole.
        """
        return self.log_global(u) + self.scale * self.log_rows(u, v, index).sum()

    def batches(self) -> tuple[Array, Array]:
        """All rows in M = ceil(N / B) batches: their numbers [M, B], and which count [M, B] (the
        last batch is filled up).
        """
        index = jnp.arange(-(-self.num_rows // self.batch_size) * self.batch_size).reshape(
            -1, self.batch_size
        )
        return jnp.minimum(index, self.num_rows - 1), index < self.num_rows

    def whole(self) -> Target:
        """The same posterior as a Target over all its D + N d numbers, for any other method and few
        rows.

        Its `constrain` gives {"theta": ..., "z": leaves [N, ...]}.
        """

        def split(u: Array) -> tuple[Array, Array]:
            return u[: self.size], u[self.size :].reshape(self.num_rows, self.local_size)

        def log_density(all_u: Array) -> Array:
            u, v = split(all_u)

            def one(batch: tuple[Array, Array]) -> Array:
                index, counts = batch
                return jnp.where(counts, self.log_rows(u, v[index], index), 0.0).sum()

            return self.log_global(u) + jax.lax.map(one, self.batches()).sum()

        def constrain(all_u: Array) -> Any:
            u, v = split(all_u)
            z = jax.lax.map(
                lambda index: self.constrain_rows(u, v[index], index), self.batches()[0]
            )
            return {
                "theta": self.constrain(u),
                "z": jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: self.num_rows], z),
            }

        def unconstrain(z: Any) -> Array:
            raise NotImplementedError("a target with local latents has no way back from its sites.")

        rows = tuple(
            f"{name} of row {n}" for n in range(self.num_rows) for name in self.local_names
        )
        return Target(log_density, constrain, unconstrain, self.names + rows)

    def trace(self) -> None:
        """Shows errors of shape now, before anything is compiled."""
        number = jnp.result_type(float)
        u = jax.ShapeDtypeStruct((self.size,), number)
        v = jax.ShapeDtypeStruct((self.batch_size, self.local_size), number)
        with in_one_sentence("the log density"):
            jax.eval_shape(
                self.batch_log_joint, u, v, jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)
            )
