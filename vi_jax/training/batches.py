"""The order of the examples: a shuffle for each epoch, its batches, and their rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.training.state import State
from vi_jax.types import Array


def shuffle(key: Array, epoch: Array, num_examples: int) -> Array:
    """The order of an epoch, [N] int32: a function of (key, epoch) alone."""
    return jax.random.permutation(
        jax.random.fold_in(jax.random.fold_in(key, 1), epoch), num_examples
    )


def batch_rows(order: Array, position: Array | int, batch_size: int) -> Array:
    """The rows of the batch at `position` of an epoch, [batch_size].

    An epoch has ceil(N / batch_size) batches and leaves no example out; where batch_size does not
    divide N, the last batch is filled from the front of the same (random) order.
    """
    return order[(position * batch_size + jnp.arange(batch_size)) % order.shape[0]]


def make_gather(data: Any) -> Callable[[Array], Any]:
    """rows [...] of integers -> those examples of data, leaves [..., *shape]; inside a program,
    leaf by leaf and flat, which is faster.
    """
    flat = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1), data)

    def gather(rows: Array) -> Any:
        return jax.tree.map(
            lambda row_of, leaf: row_of[rows].reshape(*rows.shape, *leaf.shape[1:]), flat, data
        )

    return gather


def remembered_order(
    batch_size: int, shuffled: Callable[..., Array]
) -> Callable[[State, int], tuple[Array, Callable[[State, Array], None]]]:
    """The order of the epoch a state is in: the one that the block before ended with, or a fresh
    shuffle of 60,000 in 30 ms.
    """
    memory: dict[tuple[int, bytes, int], Array] = {}

    def order_at(state: State, num_examples: int) -> tuple[Array, Callable[[State, Array], None]]:
        num_batches = -(-num_examples // batch_size)
        run_key = np.asarray(jax.random.key_data(state.key)).tobytes()

        def keep(end: State, order: Array) -> None:
            memory.clear()
            memory[max(int(end.step) - 1, 0) // num_batches, run_key, num_examples] = order

        epoch = int(state.step) // num_batches
        known = memory.pop((epoch, run_key, num_examples), None)
        if known is None:
            known = shuffled(state.key, np.int32(epoch), num_examples)
        return known, keep

    return order_at
