"""The same run as `vi_jax.make_run`, for data that stay on the host: batches are gathered ahead in a thread and sent over."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.shard import Layout
from vi_jax.training import (
    BlockInfo,
    Metrics,
    State,
    Totals,
    add_metrics,
    mean_metrics,
    no_metrics,
    on_layout,
    require_batches,
    shuffle,
)

AHEAD = 2  # groups of batches gathered and sent before they are asked for
MOST_STEPS = 32  # in one program
MOST_BYTES = 16 * 2**20  # of the batches of one program, where that is not a single step

OrderOf = Callable[[jax.Array, int, int], np.ndarray]


def make_streaming_run(
    step: Callable[[State, jax.Array], tuple[State, Metrics]],
    *,
    batch_size: int,
    most_steps: int = MOST_STEPS,
    layout: Layout | None = None,
) -> Callable[[State, Any, int], tuple[State, BlockInfo]]:
    """`run(state, data, num_steps)` over data [N, ...] on the host: any object with `len` and indexing by a row of integers.

    The order of examples is that of `vi_jax.make_run`; so are the draws. Batches go over in groups of up to `most_steps`, each
    group one program call, while the next ones are gathered: the device holds at most AHEAD + 3 groups, however large the data.
    Take `most_steps=1` where XLA is slow within a loop, as for `vi_jax.make_stepwise_run`. A block goes on to its end after a loss
    that was not finite, and names its step. On a `layout` each device is sent its own rows, and each process reads those alone.

    Raises:
      ValueError: batch_size or most_steps is not positive, or batch_size no multiple of the number of devices.
    """
    require_batches(batch_size, layout)
    if most_steps < 1:
        raise ValueError(f"most_steps is at least 1; got {most_steps}.")
    step = on_layout(step, layout)

    def several(state: State, batches: jax.Array, totals: Totals, num_steps: jax.Array) -> tuple[State, Totals]:
        def one(i: Any, carry: tuple[State, Totals]) -> tuple[State, Totals]:
            state, totals = carry
            new_state, metrics = step(state, batches[i])
            return new_state, add_metrics(totals, metrics, state.step)

        if batches.shape[0] == 1:
            return one(0, (state, totals))
        return jax.lax.fori_loop(0, num_steps, one, (state, totals))

    compiled = (jax.jit if layout is None else layout.jit)(several, donate_argnums=0)
    order_of = _make_order_of()

    def run(state: State, data: Any, num_steps: int) -> tuple[State, BlockInfo]:
        # the state's own key is donated with it; this one is of this process alone
        key = jax.random.wrap_key_data(jnp.array(np.asarray(jax.random.key_data(state.key))), impl=jax.random.key_impl(state.key))
        row = np.asarray(data[np.zeros(1, np.int32)])
        batch = jax.ShapeDtypeStruct((batch_size, *row.shape[1:]), jax.dtypes.canonicalize_dtype(row.dtype))
        totals, first = no_metrics(step, state, batch, layout), int(state.step)
        size = max(1, min(most_steps, num_steps, MOST_BYTES // (batch_size * row.nbytes)))
        groups = [(number, min(size, first + num_steps - number)) for number in range(first, first + num_steps, size)]
        for batches, count in _batches(data, groups, size, batch_size, lambda epoch: order_of(key, epoch, len(data)), layout):
            before, (state, totals) = totals, compiled(state, batches, totals, np.int32(count))
            if layout is not None:  # many host devices on few cores deadlock when programs are queued
                jax.block_until_ready(totals)
            jax.block_until_ready(before)  # calls do not wait: batches would pile up on a device slower than the host
        return state, mean_metrics(totals, jnp.int32(num_steps))

    return run


def _make_order_of() -> OrderOf:
    """(key, epoch, N) -> the order of that epoch, [N]; the next one is drawn on the device while this one lasts."""
    shuffled = jax.jit(shuffle, static_argnums=2)
    known: dict[tuple[bytes, int, int], Any] = {}

    def order_of(key: jax.Array, epoch: int, num_examples: int) -> np.ndarray:
        run_key = np.asarray(jax.random.key_data(key)).tobytes()
        names = [(run_key, number, num_examples) for number in (epoch, epoch + 1)]
        for name in set(known) - set(names):
            del known[name]
        for name in names:
            if name not in known:
                known[name] = shuffled(key, jnp.int32(name[1]), num_examples)
        known[names[0]] = np.asarray(known[names[0]])
        return known[names[0]]

    return order_of


def _batches(
    data: Any,
    groups: list[tuple[int, int]],
    size: int,
    batch_size: int,
    order_of: Callable[[int], np.ndarray],
    layout: Layout | None,
) -> Iterator[tuple[jax.Array, int]]:
    """(batches [size, batch_size, ...] on the device, how many of them count) for each group (its first step, its steps)."""
    num_batches = -(-len(data) // batch_size)

    def rows_of(number: int) -> np.ndarray:
        epoch, position = divmod(number, num_batches)
        return np.take(order_of(epoch), np.arange(position * batch_size, (position + 1) * batch_size), mode="wrap")

    def gather(first: int, count: int) -> jax.Array:
        rows = np.stack([rows_of(number) for number in range(first, first + count)])  # [count, B]

        def read(part: slice) -> np.ndarray:
            found = np.asarray(data[rows[:, part].ravel()])
            found = found.reshape(count, -1, *found.shape[1:])
            if count < size:  # the last group of a block: filled up, so that one program serves all
                found = np.concatenate([found, np.zeros((size - count, *found.shape[1:]), found.dtype)])
            return found

        if layout is None:
            return jax.device_put(read(slice(None)))
        return layout.load(read, (size, batch_size, *data.shape[1:]), axis=1)

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[jax.Array]] = [pool.submit(gather, *group) for group in groups[:AHEAD]]
        for i, (_, count) in enumerate(groups):
            batches = waiting.pop(0).result()
            if i + AHEAD < len(groups):
                waiting.append(pool.submit(gather, *groups[i + AHEAD]))
            yield batches, count
