"""Blocks of training steps, from wherever a run stands to its end."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.run.parts import ends_at, evaluates_at
from vi_jax.training import BlockInfo, State, Totals

# (state, number of steps, sums of the block so far or None) -> (state, info)
Advance = Callable[[State, int, Totals | None], tuple[State, BlockInfo]]


class Block(NamedTuple):
    """A block of `train.log_every` steps that has ended, or has been stopped inside."""

    state: State  # after it; of a sweep, leaves [R, ...] but for the step
    info: BlockInfo
    metrics: dict[str, np.ndarray]  # means over the block, on the host
    now: int  # the step it has come to
    last: int  # the step at which it ends
    evaluates: bool  # an evaluation is due
    ends: bool  # the run is over

    @property
    def is_whole(self) -> bool:
        """Whether it was not stopped inside."""
        return self.now == self.last


def blocks(
    advance: Advance,
    state: State,
    spec: Any,
    *,
    since: Totals | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[Block]:
    """The blocks that are left of a run; each is computed when it is asked for.

    Args:
      advance: runs some steps, fewer where it is asked to stop or a step is not finite. The state
        that it is given is donated.
      state: to start from.
      spec: `config.train`.
      since: the sums of the block that the state is in the middle of; None between two.
      goes_on: asked before each block.
    """
    done = int(state.step)
    inside = num_steps(since)
    while (done < spec.num_steps or since is not None) and goes_on():
        last = ends_at(done, inside, spec)
        (state, info) = advance(state, last - done, since)
        since = None
        inside = 0
        done = int(state.step)
        yield Block(
            state,
            info,
            jax.device_get(info.metrics),
            done,
            last,
            evaluates_at(done, last, spec),
            done == spec.num_steps,
        )


def num_steps(since: Totals | None) -> int:
    """The steps that the sums of a block, or of blocks side by side, are of."""
    return 0 if since is None else int(np.ravel(since.steps)[0])
