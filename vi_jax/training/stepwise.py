"""Blocks of steps over data in memory, one program call a step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vi_jax.shard import Layout, as_layout
from vi_jax.training.batches import batch_rows, shuffle
from vi_jax.training.run import on_layout, require_batches
from vi_jax.training.state import State
from vi_jax.training.step import Step
from vi_jax.training.totals import (
    BlockInfo,
    Totals,
    add_metrics,
    mean_metrics,
    starting_totals,
)
from vi_jax.types import Array, num_examples


def make_stepwise_run(
    step: Step,
    *,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Array, int], tuple[State, BlockInfo]]:
    """The same `run` as `make_run`, one program call a step: the same batches in the same order,
    the same draws.

    Slower by the calls, and much faster where a program's loop is slow inside: XLA runs
    `jax.lax.conv_general_dilated` in a CPU loop on one thread, at a fifth of its speed outside (the
    layers of `vi_jax.models.networks` do not need it). Goes on to the end of a block after a loss
    that was not finite, and names its step. Arguments and errors as for `make_run`.
    """
    layout = as_layout(layout)
    require_batches(batch_size, layout)
    start = starting_totals(step, batch_size, layout)
    step = on_layout(step, layout)

    def one(state: State, data: Any, order: Array, totals: Totals) -> tuple[State, Totals]:
        rows = batch_rows(order, state.step % -(-num_examples(data) // batch_size), batch_size)
        new_state, metrics = step(state, jax.tree.map(lambda leaf: leaf[rows], data))
        return new_state, add_metrics(totals, metrics, state.step)

    compiled = layout.jit(one, donate_argnums=0)
    shuffled = layout.jit(shuffle, static_argnums=2)

    def run(
        state: State, data: Any, num_steps: int, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        first = int(state.step)
        size = num_examples(data)
        num_batches = -(-size // batch_size)
        totals = start(state, data) if since is None else since
        order = None
        for number in range(first, first + int(num_steps)):
            if order is None or number % num_batches == 0:
                order = shuffled(state.key, np.int32(number // num_batches), size)
            state, totals = compiled(state, data, order, totals)
            if layout.num_shards > 1:
                # many host devices on few cores deadlock when steps are queued
                jax.block_until_ready(totals)
        return state, mean_metrics(totals)

    return run
