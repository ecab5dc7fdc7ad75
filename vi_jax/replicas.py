"""Replicas: R training runs that differ in their keys and numbers, under one vmap of one step.

keys = jax.random.split(key, 8)
init = jax.jit(vi.training.make_init(model.init, optimizer))    # compiled once
states = vi.replicas.stack([init(key) for key in keys])
run = vi.replicas.make_run(step, batch_size=128)
states, info = run(states, x, 100, np.ones(8, bool))      # metrics [8]
state = vi.replicas.pick(states, 3)                       # that of a run by itself
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count
from vi_jax.shard import Layout, as_layout
from vi_jax.training import (
    BlockInfo,
    State,
    Step,
    Totals,
    add_metrics,
    batch_rows,
    make_gather,
    mean_metrics,
    remembered_order,
    shuffle,
    starting_totals,
)
from vi_jax.types import Array, num_examples, select

# axes of vmap: the step is one for all
AXES = State(step=None, key=0, params=0, opt_state=0, ema=0, skipped=0)  # type: ignore[arg-type]

Run = Callable[..., tuple[State, BlockInfo]]


def stack(states: Sequence[State]) -> State:
    """R states at the same step as one, every leaf but the step [R, ...].

    Raises:
      ValueError: there are none, or they are at different steps.
    """
    steps = {int(state.step) for state in states}
    if len(steps) != 1:
        raise ValueError(
            f"replicas go side by side from one step; got {len(states)} at the steps "
            f"{sorted(steps)}."
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)._replace(step=states[0].step)


def pick(states: State, which: int) -> State:
    """One of R states."""
    return jax.tree.map(lambda leaf: leaf[which], states._replace(step=states.step[None]))._replace(
        step=states.step
    )


def make_run(
    step: Step,
    *,
    batch_size: int,
    layout: Layout | None = None,
) -> Run:
    """A compiled `run(states, data, num_steps, alive [R], since=None) -> (states, BlockInfo)`:
    `vi_jax.make_run` of R runs at once.

    Each has the batches and draws that it would have alone, so that it ends where it would alone,
    but for the rounding of its sums. The metrics and `bad_step` are [R]. A run whose loss or
    gradient is not finite stands still from there on, at the state before that step, and the others
    go on; so do those that are not `alive`. `states` is donated.

    Args:
      step: of `vi_jax.make_step`.
      batch_size: B of each run.
      layout: the runs over its devices, R a multiple of their number; `data` is whole on each
        (`layout.replicate`).

    Raises:
      ValueError: batch_size is not positive, or (when it runs) R is no multiple of the number of
        devices.
    """
    as_count(batch_size, "batch_size")
    layout = as_layout(layout)

    def block(
        states: State, data: Any, orders: Array, num_steps: Array, alive: Array, since: Totals
    ) -> tuple[State, BlockInfo, Array]:
        one = _make_one(step, data, alive, batch_size, layout)
        last = states.step + num_steps
        end, orders, totals = jax.lax.while_loop(
            lambda carry: carry[0].step < last, one, (_spread(states, layout), orders, since)
        )
        return end, layout.gather(jax.vmap(mean_metrics)(totals)), orders

    compiled = layout.jit(block, donate_argnums=(0, 2))
    order_at = remembered_order(batch_size, layout.jit(shuffles, static_argnums=2))
    starts = layout.jit(lambda totals, num: layout.gather(_each(totals, num)), static_argnums=1)
    start = starting_totals(lambda states, batch: step(pick(states, 0), batch), batch_size, layout)

    def run(
        states: State, data: Any, num_steps: int, alive: np.ndarray, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        if len(alive) % layout.num_shards:
            raise ValueError(
                f"{len(alive)} replicas do not lie evenly over {layout.num_shards} devices; take "
                "a multiple of that."
            )
        orders, keep = order_at(states, num_examples(data))
        if since is None:
            since = starts(start(states, data), len(alive))
        states, info, orders = compiled(
            states, data, orders, np.int32(num_steps), np.asarray(alive, bool), since
        )
        keep(states, orders)
        return states, info

    return run


Carry = tuple[State, Array, Totals]  # states, orders [R, N], totals


def _make_one(
    step: Step, data: Any, alive: Array, batch_size: int, layout: Layout
) -> Callable[[Carry], Carry]:
    """One step of all runs, on examples of `data`: the body of the loop of a block."""
    size = num_examples(data)
    num_batches = -(-size // batch_size)
    gather = make_gather(data)

    def one(carry: Carry) -> Carry:
        states, orders, totals = carry
        position = states.step % num_batches
        orders = jax.lax.cond(
            position == 0,
            lambda: shuffles(states.key, states.step // num_batches, size),
            lambda: orders,
        )
        rows = jax.vmap(lambda order: batch_rows(order, position, batch_size))(orders)  # [R, B]
        new, metrics = jax.vmap(step, (AXES, 0), (AXES, 0))(states, gather(rows))
        totals = jax.vmap(add_metrics, (0, 0, None))(totals, metrics, states.step)
        kept = _where(alive & (totals.bad_step < 0), new, states)
        return _spread(kept, layout), orders, totals

    return one


def _spread(states: State, layout: Layout) -> State:
    """The runs over the devices of the layout."""
    return State(step=states.step, **layout.spread(_of_each(states)))


def _each(totals: Totals, num: int) -> Totals:
    """The same sums for every run."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), totals)


def shuffles(keys: Array, epoch: Array, num_examples: int) -> Array:
    """The orders of an epoch, [R, N], for keys [R]."""
    return jax.vmap(lambda key: shuffle(key, epoch, num_examples))(keys)


def _where(chosen: Array, new: State, old: State) -> State:
    """The new of R states where `chosen` [R], else the old one; all at the new step."""

    return State(step=new.step, **select(chosen, _of_each(new), _of_each(old)))


def _of_each(states: State) -> dict[str, Any]:
    """What every run has of its own."""
    return {name: leaf for name, leaf in states._asdict().items() if name != "step"}
