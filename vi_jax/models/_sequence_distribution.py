"""A distribution over sequences of rows: at each step a row of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from vi_jax.models._table import Table
from vi_jax.models._table_distribution import Row, TableDistribution
from vi_jax.types import Array, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SequenceDistribution:
    """Independent columns and steps, given z: a distribution over examples of `sequence_vae`.

    `mean` and `variance` are in the model's units, [T, D]; `probs` of classes are [T, D, L], see
    `TableDistribution`.
    """

    own: Params  # of the likelihoods
    outputs: Array  # of the decoder, [T, M]
    context: Mapping[str, Array]  # exposure [T] and covariates [T, C], copied into samples
    table: Table = field(metadata={"static": True})

    @property
    def mean(self) -> Array:
        """E[x_tj | z], [T, D]; of classes the expected code."""
        return self._at_each_step(lambda p: p.mean)

    @property
    def variance(self) -> Array:
        """Var[x_tj | z], [T, D]; of classes that of the code."""
        return self._at_each_step(lambda p: p.variance)

    @property
    def probs(self) -> Array:
        """P(x_tj = l | z) of columns of zeros and ones, classes or levels, [T, D, L]."""
        return self._at_each_step(lambda p: p.probs)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Whole examples of T steps with everything observed, leaves [*sample_shape, T, ...]."""
        keys = jax.random.split(key, self.outputs.shape[0])

        def at_step(key: Array, outputs: Array, context: Mapping[str, Array]) -> dict[str, Array]:
            return self._at(outputs, context).sample(key, sample_shape)

        over_steps = jax.vmap(at_step, out_axes=len(sample_shape))
        return over_steps(keys, self.outputs, dict(self.context))

    def log_prob(self, value: Row) -> Array:
        """log p of what is observed of one example, nats, a scalar."""
        return self.log_probs(value).sum()

    def log_probs(self, value: Row) -> Array:
        """log p of each entry, 0 where not observed, nats, [T, D]."""
        rows = {name: value[name] for name in ("values", "observed")}
        return self._at_each_step(lambda p, row: p.log_probs(row), rows)

    def _at(self, outputs: Array, context: Mapping[str, Array]) -> TableDistribution:
        return self.table.distribution(self.own, outputs, dict(context))

    def _at_each_step(self, function: Callable[..., Array], *args: Any) -> Array:
        """A function of the row's distribution and of arguments [T, ...], at each step."""

        def at_step(outputs: Array, context: Mapping[str, Array], *args: Any) -> Array:
            return function(self._at(outputs, context), *args)

        return jax.vmap(at_step)(self.outputs, dict(self.context), *args)
