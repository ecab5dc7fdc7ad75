"""A block of steps in parts of some seconds, so that a run which is asked to stop does not have to
go on to the end of the block.

The sums of the block go from part to part, and into the checkpoint of a run that stops between two:
state and metrics are those of the block in one piece, to the last bit, however it was cut.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import processes
from vi_jax.training import BlockInfo, State, Totals

SECONDS = 5.0  # of a part, where a step takes no more


class Parts:
    """`parts(state, data, num_steps, *more, since=None) -> (state, info)`: the `run` in parts,
    until it is done or asked to stop.

    The first part is one step, which compiles, the second one shows the pace, and from then on a
    part has the steps of `SECONDS`. Several processes go by the slowest of them.

    Args:
      run: of `vi_jax.make_run` or another that takes `since`.
      asked: whether to stop (`Stop.asked`); called between parts, by all processes alike.
    """

    def __init__(
        self, run: Callable[..., tuple[State, BlockInfo]], asked: Callable[[], bool]
    ) -> None:
        self._run = run
        self._asked = asked
        # seconds a step
        self._num_parts = 0
        self._pace = float("inf")

    def __call__(
        self, state: State, data: Any, num_steps: int, *more: Any, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        """Runs `num_steps` steps, which may be none; fewer where it is asked to stop, or one is not
        finite.
        """
        last = int(state.step) + num_steps
        while True:
            size = min(last - int(state.step), max(1, int(SECONDS / self._pace)))
            began = time.perf_counter()
            state, info = self._run(state, data, size, *more, since=since)
            since = info.totals
            is_over = int(state.step) >= last or bool(np.all(np.asarray(info.bad_step) >= 0))
            self._num_parts += 1
            if self._num_parts > 1 and size:  # the first one compiles
                self._pace = max(processes.most(time.perf_counter() - began) / size, 1e-9)
            if is_over or self._asked():
                return state, info


def ends_at(done: int, inside: int, spec: Any) -> int:
    """The step at which the block ends that began `inside` steps before the step `done`; `spec` is
    `config.train`.
    """
    first = done - inside
    return min(first + spec.log_every - first % spec.log_every, spec.num_steps)


def evaluates_at(now: int, last: int, spec: Any) -> bool:
    """Whether there is an evaluation at the step `now` of a block that ends at `last`."""
    return now == last and (now % spec.eval_every == 0 or now == spec.num_steps)


def as_numbers(totals: Totals) -> dict[str, Any]:
    """The sums as what JSON holds, exactly: each its dtype and its value."""
    return {name: [str(leaf.dtype), leaf.item()] for name, leaf in block_leaves(totals).items()}


def from_numbers(numbers: dict[str, Any]) -> Totals:
    """The sums again; of numbers that are none of ours, an error of Python's."""
    leaves = {
        name: jnp.asarray(np.dtype(kind).type(value)) for name, (kind, value) in numbers.items()
    }
    return Totals(
        {
            name.removeprefix("sums."): leaf
            for name, leaf in leaves.items()
            if name.startswith("sums.")
        },
        *(leaves[name] for name in ("norms", "bad_step", "steps")),
    )


def block_leaves(totals: Totals) -> dict[str, np.ndarray]:
    """The sums as a flat dict of arrays on the host."""
    sums, rest = jax.device_get((totals.sums, totals._asdict()))
    return {f"sums.{name}": np.asarray(leaf) for name, leaf in sums.items()} | {
        name: np.asarray(leaf) for name, leaf in rest.items() if name != "sums"
    }
