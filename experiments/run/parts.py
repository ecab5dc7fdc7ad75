"""A block of steps in parts of some seconds, so that a run which is asked to stop does not have to
go on to the end of the block.

The sums of the block go from part to part, and into the checkpoint of a run that stops between two:
state and metrics are those of the block in one piece, to the last bit, however it was cut.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.run import heartbeat, processes
from experiments.run.live import Portions
from vi_jax.training import BlockInfo, State, Totals

SECONDS = 5.0  # of a part, where a step takes no more

# (step reached, steps of the part, its seconds, means of the block so far, whether it is over)
Report = Callable[[int, int, float | None, dict[str, Any], bool], None]


class Parts:
    """`parts(state, data, num_steps, *more, since=None) -> (state, info)`: the `run` in parts,
    until it is done or asked to stop.

    The first part is one step, which compiles; the second one is a step, and from then on a part
    has up to twice as many as the one before, and no more than take `SECONDS` at the pace of that
    one. Several processes go by the slowest of them.

    Args:
      run: of `vi_jax.make_run` or another that takes `since`.
      asked: whether to stop (`Stop.asked`); called between parts, by all processes alike.
      report: called after each part; its seconds are None for the first, which compiles.
    """

    def __init__(
        self,
        run: Callable[..., tuple[State, BlockInfo]],
        asked: Callable[[], bool],
        report: Report | None = None,
    ) -> None:
        self._run = run
        self._asked = asked
        self._report = report
        self._has_compiled = False
        self._portions = Portions(SECONDS)

    def __call__(
        self, state: State, data: Any, num_steps: int, *more: Any, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        """Runs `num_steps` steps, which may be none; fewer where it is asked to stop, or one is not
        finite.
        """
        first = int(state.step)
        last = first + num_steps
        while True:
            size = min(last - first, self._portions.size)
            began = time.perf_counter()
            with self._phase(first):
                state, info = self._run(state, data, size, *more, since=since)
                now = int(state.step)
            since = info.totals
            is_over = now >= last or bool(np.all(np.asarray(info.bad_step) >= 0))
            seconds = time.perf_counter() - began
            if size and self._has_compiled:
                self._portions.took(size, processes.most(seconds))
            if size and self._report is not None:
                spent = seconds if self._has_compiled else None
                self._report(now, now - first, spent, info.metrics, is_over)
            self._has_compiled = self._has_compiled or size > 0
            if is_over or self._asked():
                return state, info
            first = now

    def _phase(self, first: int) -> contextlib.AbstractContextManager[None]:
        if self._has_compiled:
            return heartbeat.phase(f"training, after step {first:,}")
        return heartbeat.compiling("compiling and taking the first step")


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
