"""Optimisers of a table of guides, one for each row, of which a step updates those of a batch.

Adam over a whole table would go on moving rows that no batch holds, by its momentum, and touch all
N at each step. Here the rows of the batch are taken out with the optimiser's state of
each, moved, and put back: O(B) a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax.optimise import own_units
from vi_jax.types import Array, Params

AVERAGE_POWER = 3.0  # of the averages: the weight of a visit grows as the third power of its number


class Rows(NamedTuple):
    """The table; leaves [N, ...]. A row learns of the end of a stage at its next visit."""

    params: Params
    optimizer: Any  # of each row
    average: Params  # of its visits on its stage, late ones above all
    answer: Params  # the average at the end of the stage before
    visits: Array  # [N] int32, on its stage
    stage: Array  # [N] int32, -1 before the first visit


def begin(rule: optax.GradientTransformation, one: Params, num_rows: int) -> Rows:
    """N rows of the same parameters."""

    def spread(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (num_rows, *jnp.shape(leaf))).copy()

    # no two share memory: they are donated
    table, average, answer = (jax.tree.map(spread, one) for _ in range(3))
    optimizer = jax.tree.map(spread, rule.init(one))
    return Rows(
        table,
        optimizer,
        average,
        answer,
        jnp.zeros(num_rows, jnp.int32),
        jnp.full(num_rows, -1, jnp.int32),
    )


def take(rows: Rows, index: Array, stage: Array) -> Rows:
    """The rows of a batch, [B, ...]; those that come to a new stage stand where they were on
    average on the last.
    """
    entry = jax.tree.map(lambda leaf: leaf[index], rows)
    new = entry.stage != stage

    def choose(a: Any, b: Any) -> Any:
        return jax.tree.map(
            lambda x, y: jnp.where(new.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b
        )

    return entry._replace(
        params=choose(entry.average, entry.params),
        answer=choose(entry.average, entry.answer),
        visits=jnp.where(new, 0, entry.visits),
        stage=jnp.full_like(entry.stage, stage),
    )


def move(rule: optax.GradientTransformation, entry: Rows, slope: Params, rate: Array) -> Rows:
    """The rows of a batch after an update each, by the gradients [B, ...] of a loss."""
    inward = jax.vmap(own_units.inward)(entry.params, slope)
    updates, optimizer = jax.vmap(rule.update)(inward, entry.optimizer, entry.params)
    params = jax.vmap(own_units.outward)(entry.params, jax.tree.map(lambda d: rate * d, updates))
    visits = entry.visits + 1
    # polynomial-decay averaging (Shamir & Zhang 2013, sec. 4)
    weight = (1 + AVERAGE_POWER) / (visits + AVERAGE_POWER)

    def mean(old: Array, new: Array) -> Array:
        return (old + weight.reshape(-1, *[1] * (old.ndim - 1)) * (new - old)).astype(old.dtype)

    return entry._replace(
        params=params,
        optimizer=optimizer,
        average=jax.tree.map(mean, entry.average, params),
        visits=visits,
    )


def put(rows: Rows, index: Array, entry: Rows, good: Array) -> Rows:
    """The table with the rows of a batch put back, where `good`; else as it was."""

    def back(leaf: Array, new: Array) -> Array:
        return leaf.at[index].set(
            jnp.where(good, new, leaf[index]).astype(leaf.dtype), unique_indices=True
        )

    return jax.tree.map(back, rows, entry)
