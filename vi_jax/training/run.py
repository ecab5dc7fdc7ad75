"""Compiled blocks of steps over data in memory: batches, step and sums in one program."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vi_jax.arguments import as_count
from vi_jax.shard import Layout, as_layout
from vi_jax.training.batches import batch_rows, make_gather, remembered_order, shuffle
from vi_jax.training.state import State
from vi_jax.training.step import Metrics, Step
from vi_jax.training.totals import (
    BlockInfo,
    Totals,
    add_metrics,
    mean_metrics,
    starting_totals,
)
from vi_jax.types import Array, num_examples


def on_layout(step: Step, layout: Layout | None) -> Step:
    """The same step on a mesh: whole parameters while it lasts, each device its own examples; the
    state ends by the rules.
    """
    layout = as_layout(layout)

    def sharded(state: State, batch: Any) -> tuple[State, Metrics]:
        new_state, metrics = step(
            state._replace(params=layout.gather(state.params)), layout.spread(batch)
        )
        return layout.settle(new_state), layout.gather(metrics)

    return sharded


def require_batches(batch_size: int, layout: Layout | None) -> None:
    """Raises ValueError where a batch has no examples, or does not lie evenly over the devices."""
    as_count(batch_size, "batch_size")
    num_shards = as_layout(layout).num_shards
    if batch_size % num_shards:
        raise ValueError(
            f"a batch of {batch_size} examples does not lie evenly over {num_shards} devices; take "
            "a multiple of that."
        )


def make_run(
    step: Step,
    *,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Array, int | Array], tuple[State, BlockInfo]]:
    """A compiled `run(state, data, num_steps, since=None) -> (state, BlockInfo)`: gather, step and
    sums in one program.

    `data`, a pytree of arrays [N, ...], stays on the device, in its own dtypes. The number of steps
    is an argument of the program, not a constant of it, so that blocks of any length share one
    compile; `state` is donated. A block may begin and end anywhere in an epoch. One in parts, each
    `since` the `BlockInfo.totals` of the one before, has the state and the metrics of the whole, to
    the last bit.

    Args:
      step: of `make_step`.
      batch_size: B, of all devices together.
      layout: where the state lies, the one that it was made with; `data` is whole on every device
        (`layout.replicate`).

    Raises:
      ValueError: batch_size is not positive, or no multiple of the number of devices.
    """
    layout = as_layout(layout)
    require_batches(batch_size, layout)
    start = starting_totals(step, batch_size, layout)
    step = on_layout(step, layout)

    def block(
        state: State, data: Any, order: Array, num_steps: Array, since: Totals
    ) -> tuple[State, BlockInfo, Array]:
        size = num_examples(data)
        num_batches = -(-size // batch_size)
        gather = make_gather(data)

        def one(carry: tuple[State, Array, Totals]) -> tuple[State, Array, Totals]:
            state, order, totals = carry
            position = state.step % num_batches
            order = jax.lax.cond(
                position == 0,
                lambda: shuffle(state.key, state.step // num_batches, size),
                lambda: order,
            )
            batch = gather(layout.spread(batch_rows(order, position, batch_size)))
            new_state, metrics = step(state, batch)
            return new_state, order, add_metrics(totals, metrics, state.step)

        def more(carry: tuple[State, Array, Totals]) -> Array:
            return (carry[0].step < last) & (carry[2].bad_step < 0)

        last = state.step + num_steps
        end, order, totals = jax.lax.while_loop(more, one, (state, order, since))
        return end, layout.gather(mean_metrics(totals)), layout.gather(order)

    compiled = layout.jit(block, donate_argnums=(0, 2))
    order_at = remembered_order(
        batch_size, layout.jit(lambda *args: layout.gather(shuffle(*args)), static_argnums=2)
    )

    def run(
        state: State, data: Any, num_steps: int | Array, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        order, keep = order_at(state, num_examples(data))
        if since is None:
            since = start(state, data)
        state, info, order = compiled(state, data, order, np.int32(num_steps), since)
        keep(state, order)
        return state, info

    return run
