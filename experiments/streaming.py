"""The same run as `vi_jax.make_run`, for data that stay on the host: batches are gathered ahead in a thread and sent over."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.training import BlockInfo, Metrics, State, Totals, add_metrics, batch_rows, mean_metrics, no_metrics, shuffle

AHEAD = 2  # batches gathered before they are asked for


def make_streaming_run(
    step: Callable[[State, jax.Array], tuple[State, Metrics]], *, batch_size: int
) -> Callable[[State, Any, int], tuple[State, BlockInfo]]:
    """`run(state, data, num_steps)` over data [N, ...] on the host: any object with `len` and indexing by a row of integers.

    The order of examples is that of `vi_jax.make_run`; so are the draws.
    """

    def one(state: State, batch: jax.Array, totals: Totals) -> tuple[State, Totals]:
        new_state, metrics = step(state, batch)
        return new_state, add_metrics(totals, metrics, state.step)

    compiled = jax.jit(one, donate_argnums=(0, 2))

    def run(state: State, data: Any, num_steps: int) -> tuple[State, BlockInfo]:
        key = jax.random.wrap_key_data(jnp.array(jax.random.key_data(state.key)))  # the state's own is donated with it
        totals = no_metrics(step, state, jnp.asarray(data[np.zeros(batch_size, np.int32)]))
        for batch in _batches(key, data, int(state.step), num_steps, batch_size):
            state, totals = compiled(state, batch, totals)
        return state, mean_metrics(totals, jnp.int32(num_steps))

    return run


def _batches(key: jax.Array, data: Any, first: int, num_steps: int, batch_size: int) -> Iterator[jax.Array]:
    num_batches = -(-len(data) // batch_size)
    orders: dict[int, np.ndarray] = {}

    def gather(number: int) -> np.ndarray:
        epoch, position = divmod(number, num_batches)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = np.asarray(shuffle(key, jnp.int32(epoch), len(data)))
        return np.asarray(data[np.asarray(batch_rows(jnp.asarray(orders[epoch]), position, batch_size))])

    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(gather, first + number) for number in range(min(AHEAD, num_steps))]
        for number in range(num_steps):
            batch = waiting.pop(0).result()
            if number + AHEAD < num_steps:
                waiting.append(pool.submit(gather, first + number + AHEAD))
            yield jnp.asarray(batch)
