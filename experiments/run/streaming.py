"""The same run as `vi_jax.make_run`, for data that stay on the host: batches are gathered ahead in
a thread and sent over.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.run.mapped import Announce, make_announce
from vi_jax.shard import Layout, as_layout
from vi_jax.training import (
    BlockInfo,
    Metrics,
    State,
    Totals,
    add_metrics,
    mean_metrics,
    on_layout,
    require_batches,
    shuffle,
    starting_totals,
)
from vi_jax.types import num_examples

AHEAD = 2  # groups of batches gathered and sent before they are asked for
ANNOUNCED = 2  # groups more that a disk is told of
MOST_STEPS = 32  # in one program
MOST_BYTES = 16 * 2**20  # of the batches of one program, where that is not a single step

OrderOf = Callable[[jax.Array, int, int], np.ndarray]
RowsOf = Callable[[int], np.ndarray]


def make_streaming_run(
    step: Callable[[State, Any], tuple[State, Metrics]],
    *,
    batch_size: int,
    most_steps: int = MOST_STEPS,
    layout: Layout | None = None,
) -> Callable[..., tuple[State, BlockInfo]]:
    """`run(state, data, num_steps, since=None)` over data [N, ...] on the host: any object with
    `len`, indexed by rows of integers, or a pytree of such objects, of one length.

    The order of examples is that of `vi_jax.make_run`; so are the draws, and what `since` is.
    Batches go over in groups of up to `most_steps`, each group one program call, while the next
    ones are gathered: the device holds at most AHEAD + 3 groups, however large the data. A group is
    as large for fewer steps: take no more than a block has, and `most_steps=1` where XLA is slow
    within a loop, as for `vi_jax.make_stepwise_run`. A block goes on to its end after a loss that
    was not finite, and names its step. On a `layout` each device is sent its own rows, and each
    process reads those alone.

    Rows of a `np.memmap` are announced to the kernel before they are read (`mapped`), so that a
    file larger than the memory streams as fast as its disk serves many rows at once.

    Raises:
      ValueError: batch_size or most_steps is not positive, or batch_size no multiple of the number
        of devices.
    """
    layout = as_layout(layout)
    require_batches(batch_size, layout)
    if most_steps < 1:
        raise ValueError(f"most_steps is at least 1; got {most_steps}.")
    start = starting_totals(step, batch_size, layout)
    step = on_layout(step, layout)
    compiled = layout.jit(partial(_several, step), donate_argnums=0)
    order_of = _make_order_of()
    announced = _Announced()

    def run(
        state: State, data: Any, num_steps: int, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        # the state's own key is donated with it; this one is of this process alone
        key = jax.random.wrap_key_data(
            jnp.array(np.asarray(jax.random.key_data(state.key))),
            impl=jax.random.key_impl(state.key),
        )
        row = jax.tree.map(lambda leaf: np.asarray(leaf[np.zeros(1, np.int32)]), data)
        row_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(row))
        length = _length(data)
        first = int(state.step)
        totals = start(state, row) if since is None else since
        # of the config alone, so that a step is the same program however a run is cut into blocks
        size = max(1, min(most_steps, MOST_BYTES // (batch_size * row_bytes)))
        groups = [
            (number, min(size, first + num_steps - number))
            for number in range(first, first + num_steps, size)
        ]
        rows_of = _make_rows_of(lambda epoch: order_of(key, epoch, length), length, batch_size)
        tell = announced.of(data, rows_of, ahead=(AHEAD + ANNOUNCED) * size)
        for batches, count in _batches(data, row, groups, size, batch_size, rows_of, tell, layout):
            before = totals
            (state, totals) = compiled(state, batches, totals, np.int32(count))
            if layout.num_shards > 1:
                # many host devices on few cores deadlock when programs are queued
                jax.block_until_ready(totals)
            # calls do not wait: batches would pile up on a device slower than the host
            jax.block_until_ready(before)
        return state, mean_metrics(totals)

    return run


def _several(
    step: Callable[[State, Any], tuple[State, Metrics]],
    state: State,
    batches: Any,
    totals: Totals,
    num_steps: jax.Array,
) -> tuple[State, Totals]:
    """The first `num_steps` steps of a group of batches, leaves [steps, B, ...]."""

    def one(i: Any, carry: tuple[State, Totals]) -> tuple[State, Totals]:
        state, totals = carry
        new_state, metrics = step(state, jax.tree.map(lambda leaf: leaf[i], batches))
        return new_state, add_metrics(totals, metrics, state.step)

    if num_examples(batches) == 1:
        return one(0, (state, totals))
    return jax.lax.fori_loop(0, num_steps, one, (state, totals))


def _length(data: Any) -> int:
    """N of the leaves of data.

    Raises:
      ValueError: they differ.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1:
        raise ValueError(f"the leaves of a data set have one length; got {sorted(lengths)}.")
    return lengths.pop()


def _make_order_of() -> OrderOf:
    """(key, epoch, N) -> the order of that epoch, [N]; the next one is drawn on the device while
    this one lasts.

    The one before is kept too: what is announced is ahead of what is read, and they pass into an
    epoch one after the other.
    """
    shuffled = jax.jit(shuffle, static_argnums=2)
    known: dict[tuple[bytes, int, int], Any] = {}

    def order_of(key: jax.Array, epoch: int, num_examples: int) -> np.ndarray:
        run_key = np.asarray(jax.random.key_data(key)).tobytes()
        names = [(run_key, number, num_examples) for number in (epoch, epoch + 1)]
        for name in set(known) - {*names, (run_key, epoch - 1, num_examples)}:
            del known[name]
        for name in names:
            if name not in known:
                known[name] = shuffled(key, jnp.int32(name[1]), num_examples)
            # on the host before the next one is drawn: a draw takes a few times the memory of an
            # order
            if name == names[0]:
                known[name] = np.asarray(known[name])
        return known[names[0]]

    return order_of


class _Announced:
    """What a disk has been told of: the steps that are read next, past the end of a block too, each
    of them once.
    """

    def __init__(self) -> None:
        self._data: Any = None
        self._announce: list[Announce] = []
        self._until = 0  # the first step that has not been

    def of(self, data: Any, rows_of: RowsOf, *, ahead: int) -> Callable[[int], None]:
        """`tell(first)`: announces the `ahead` steps from `first` on."""
        if data is not self._data:
            # where processes share a batch, all of them would read all of it
            self._data = data
            self._until = 0
            self._announce = []
            if jax.process_count() == 1:
                found = [make_announce(leaf) for leaf in jax.tree.leaves(data)]
                self._announce = [announce for announce in found if announce is not None]

        def tell(first: int) -> None:
            if not self._announce:
                return
            begin = self._until if first < self._until <= first + ahead else first
            for number in range(begin, first + ahead):
                for announce in self._announce:
                    announce(rows_of(number))
            self._until = first + ahead

        return tell


def _make_rows_of(
    order_of: Callable[[int], np.ndarray], num_examples: int, batch_size: int
) -> RowsOf:
    """The rows of the batch of a step, [B]."""
    num_batches = -(-num_examples // batch_size)

    def rows_of(number: int) -> np.ndarray:
        epoch, position = divmod(number, num_batches)
        return np.take(
            order_of(epoch),
            np.arange(position * batch_size, (position + 1) * batch_size),
            mode="wrap",
        )

    return rows_of


def _batches(
    data: Any,
    row: Any,
    groups: list[tuple[int, int]],
    size: int,
    batch_size: int,
    rows_of: RowsOf,
    tell: Callable[[int], None],
    layout: Layout,
) -> Iterator[tuple[Any, int]]:
    """(batches, leaves [size, batch_size, ...] on the device, how many of them count) for each
    group (its first step, its steps); `row` is one row of the data, leaves [1, ...].
    """

    def gather(first: int, count: int) -> Any:
        tell(first)
        rows = np.stack([rows_of(number) for number in range(first, first + count)])  # [count, B]

        def send(leaf: Any, row: np.ndarray) -> jax.Array:
            def read(part: slice) -> np.ndarray:
                found = np.asarray(leaf[rows[:, part].ravel()])
                found = found.reshape(count, -1, *found.shape[1:])
                if count < size:  # the last group of a block: one program serves all
                    filler = np.zeros((size - count, *found.shape[1:]), found.dtype)
                    found = np.concatenate([found, filler])
                return found

            return layout.load(read, (size, batch_size, *row.shape[1:]), axis=1)

        return jax.tree.map(send, data, row)

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[Any]] = [pool.submit(gather, *group) for group in groups[:AHEAD]]
        for i, (_, count) in enumerate(groups):
            batches = waiting.pop(0).result()
            if i + AHEAD < len(groups):
                waiting.append(pool.submit(gather, *groups[i + AHEAD]))
            yield batches, count
