"""Progress reports of a fit: phases in words, and the method's value every so many steps."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.fitting._loop import Loop, evaluations
from vi_jax.types import Array

Report = Callable[[int, float], None]
OnPhase = Callable[[str], None]
REPORT_SECONDS = 2.0  # between reports, where their steps are not given
PROCESSES_EVERY = 100  # steps between reports in several processes, whose clocks differ


class Watch(NamedTuple):
    """What is called with reports, and how often."""

    report: Report | None
    every: int | None  # steps; None: by time
    on_phase: OnPhase


def silently(text: str) -> None:
    """Reports nothing."""


class Blocks:
    """Steps between two reports: as given; else one, and then up to twice as many as before
    while they take no more than REPORT_SECONDS.
    """

    def __init__(self, every: int | None, now: Callable[[], float] = time.perf_counter) -> None:
        if every is None and jax.process_count() > 1:
            every = PROCESSES_EVERY
        self._by_time = every is None
        self._now = now
        self._began = now()
        self.size = every or 1

    def begin(self) -> None:
        """A block begins."""
        self._began = self._now()

    def end(self, steps: int) -> None:
        """A block of so many steps is over."""
        if self._by_time:
            pace = max(self._now() - self._began, 1e-9) / max(steps, 1)
            self.size = max(1, min(2 * self.size, int(REPORT_SECONDS / pace)))


def run_loop(
    watch: Watch,
    advance: Callable[[Loop, Array], Loop],
    loop: Loop,
    place: Callable[[Array], Array],
    num_steps: int,
) -> Loop:
    """A method's loop run to its end or to a step, with a report after each block.

    Args:
      advance: (loop, last step) -> the loop there.
      place: lays a number where the loop lies.
      num_steps: the step.
    """
    if watch.report is None:
        return advance(loop, place(jnp.int32(num_steps)))
    blocks = Blocks(watch.every)
    last = int(loop.step)
    while True:
        first = last
        blocks.begin()
        loop = advance(loop, place(jnp.int32(min(first + blocks.size, num_steps))))
        last = int(loop.step)
        blocks.end(last - first)
        watch.report(last, float(np.nanmax(np.asarray(loop.values[:, last - 1]), initial=-np.inf)))
        if last >= num_steps or bool(loop.done.all()):
            return loop


def weighing(watch: Watch, num_draws: int, seconds: float, loop: Loop) -> None:
    """The phase of the samples at the end, with the most that it takes: a value of the log density
    costs no more than a gradient did.

    Args:
      num_draws: values of the log density.
      seconds: that the loop took.
    """
    if watch.on_phase is silently:
        return
    most = num_draws * seconds / max(evaluations(loop), 1)
    text = f"weighing {num_draws:,} samples"
    if most >= 10:
        text += f", at most {_duration(most)} at the pace of the steps"
    watch.on_phase(text)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
