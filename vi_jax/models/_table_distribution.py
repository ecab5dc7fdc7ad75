"""A distribution over the rows of a table, column by column."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vi_jax.distributions import Bernoulli, OrderedLogistic
from vi_jax.types import Array

Row = Mapping[str, Array]


def take(row: Array, columns: tuple[int, ...]) -> Array:
    """The numbers [..., n] of some columns of a row [..., D]; neighbours by a slice, which is
    faster.
    """
    first = columns[0]
    if columns == tuple(range(first, first + len(columns))):
        return row[..., first : first + len(columns)]
    return row[..., np.array(columns)]


class Layout(NamedTuple):
    """Which columns the parts of a distribution are of; static."""

    columns: tuple[tuple[int, ...], ...]  # those of each part
    safe: tuple[float, ...]  # a value of each column's support, [D]

    def of(self, part: int, row: Array) -> Array:
        """The numbers [..., n] of a part in a row [..., D]."""
        return take(row, self.columns[part])

    def row(self, parts: list[Array]) -> Array:
        """A row [..., D] from the numbers [..., n] of each part."""
        order = np.argsort(np.concatenate(self.columns))
        return take(jnp.concatenate(parts, axis=-1), tuple(int(number) for number in order))

    def filled(self, values: Array, observed: Array) -> Array:
        """The values, and where none is observed one of the column's support, [D]."""
        values = jnp.asarray(values)
        if not jnp.issubdtype(values.dtype, jnp.floating):
            values = values.astype(jnp.result_type(float))
        return jnp.where(observed, values, jnp.asarray(self.safe, values.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TableDistribution:
    """Independent columns, given z: a distribution over examples of `table_vae`.

    `mean` and `variance` are in the model's units, [D].
    """

    parts: tuple[Any, ...]  # distributions of batch shape [n], by kind of column
    context: Mapping[str, Array]  # exposure and covariates, copied into samples
    layout: Layout = field(metadata={"static": True})

    @property
    def mean(self) -> Array:
        """E[x_j | z], [D]; of classes the expected code, which means something if they are
        ordered (see `probs`).
        """
        return self.layout.row([_mean(part) for part in self.parts])

    @property
    def variance(self) -> Array:
        """Var[x_j | z], [D]; of classes that of the code."""
        return self.layout.row([_variance(part) for part in self.parts])

    @property
    def probs(self) -> Array:
        """P(x_j = l | z) of columns of zeros and ones, classes or levels, [D, L] with the largest L
        of the table, at least 2; zeros for the other columns, and beyond a column's own L.
        """
        each = [_probs(part) for part in self.parts]
        largest = max([2, *(probs.shape[-1] for probs in each)])
        padded = [_pad(probs, largest) for probs in each]
        return jnp.swapaxes(self.layout.row([jnp.swapaxes(p, -1, -2) for p in padded]), -1, -2)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Whole examples with everything observed, leaves [*sample_shape, ...]."""
        keys = jax.random.split(key, len(self.parts))
        dtype = jnp.result_type(float)
        drawn = [
            part.sample(key, sample_shape).astype(dtype)
            for key, part in zip(keys, self.parts, strict=True)
        ]
        values = self.layout.row(drawn)
        copied = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*sample_shape, *jnp.shape(leaf))),
            dict(self.context),
        )
        return {"values": values, "observed": jnp.ones(values.shape, bool), **copied}

    def log_prob(self, value: Row) -> Array:
        """log p of the observed columns of one example, nats, a scalar."""
        return self.log_probs(value).sum()

    def log_probs(self, value: Row) -> Array:
        """log p of each column, 0 where not observed, nats, [D]."""
        observed = value["observed"]
        values = self.layout.filled(value["values"], observed)
        each = [
            part.log_prob(_as_support(part, self.layout.of(number, values)))
            for number, part in enumerate(self.parts)
        ]
        return jnp.where(observed, self.layout.row(each), 0.0)


def _is_of_classes(part: Any) -> bool:
    return isinstance(part, dist.CategoricalLogits | OrderedLogistic)


def _as_support(part: Any, values: Array) -> Array:
    """Values as a part's density takes them: classes are whole numbers there."""
    return values.astype(jnp.int32) if _is_of_classes(part) else values


def _mean(part: Any) -> Array:
    if not _is_of_classes(part):
        return part.mean
    return part.probs @ jnp.arange(part.probs.shape[-1], dtype=part.probs.dtype)


def _variance(part: Any) -> Array:
    if not _is_of_classes(part):
        return part.variance
    codes = jnp.arange(part.probs.shape[-1], dtype=part.probs.dtype)
    return part.probs @ codes**2 - (part.probs @ codes) ** 2


def _probs(part: Any) -> Array:
    """[n, L], of L = 0 where the part has no classes."""
    if _is_of_classes(part):
        return part.probs
    if isinstance(part, Bernoulli):
        return jnp.stack([1.0 - part.probs, part.probs], axis=-1)
    return jnp.zeros((*part.batch_shape, 0), jnp.result_type(float))


def _pad(probs: Array, size: int) -> Array:
    missing = size - probs.shape[-1]
    return jnp.pad(probs, [(0, 0)] * (probs.ndim - 1) + [(0, missing)])
