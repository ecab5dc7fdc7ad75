"""The lines that say how far a fit is: step, rate, value, and the most that is left."""

import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.metrics import clock

LINES = 100  # of a method that takes all of its steps
FEWEST_STEPS = 10  # between lines: each is a word from the device
SECONDS = 0.1  # between lines, but for a method's first two, of which the second has a rate


class FitProgress:
    """`report` of vi.fit: prints a line on stderr.

    Args:
      totals: the most steps of each method that the fit may run, one after another; a step number
        that falls is the next one's.
      now: seconds.
    """

    def __init__(self, totals: list[int], now: Callable[[], float] = time.perf_counter) -> None:
        self._totals = totals
        self._now = now
        self._first: tuple[int, float] | None = None  # what came before it was compiled
        self._last = 0
        self._lines = 0
        self._shown = 0.0

    @property
    def every(self) -> int:
        """Steps between lines, for `report_every`: the first method's hundredth part, 10 at the
        least.
        """
        return max(FEWEST_STEPS, self._totals[0] // LINES)

    def __call__(self, step: int, value: float) -> None:
        if step <= self._last:
            self._totals = self._totals[1:]
            self._first = None
            self._lines = 0
        self._last = step
        now = self._now()
        rate = (step - self._first[0]) / max(now - self._first[1], 1e-9) if self._first else None
        self._first = self._first or (step, now)
        if self._lines < 2 or now - self._shown >= SECONDS:
            self._lines = self._lines + 1
            self._shown = now
            print(
                _line(step, self._totals[0] if self._totals else None, rate, value),
                file=sys.stderr,
                flush=True,
            )


def totals_of(method: Any, target: Any) -> list[int]:
    """The most steps of a method, and of the second one that vi.fit may try where it picks the
    first itself.

    Args:
      method: None where vi.fit picks it.
    """
    import jax

    from vi_jax.fitting import _fallback
    from vi_jax.methods.default import FULL_RANK_UP_TO, choose

    if method is not None:
        return [method.num_steps]
    large = target.size > FULL_RANK_UP_TO
    second = _fallback.BUDGET // (_fallback.MEAN_FIELD_DRAWS if large else _fallback.FLOW_DRAWS)
    return [choose(jax.random.key(0), target).method.num_steps, second]


def _line(step: int, total: int | None, rate: float | None, value: float) -> str:
    of = "" if total is None else f"/{total:,}"
    left = "?" if rate is None or total is None else clock((total - step) / rate)
    return (
        f"step {step:,}{of}  {'-' if rate is None else f'{rate:,.0f}'} steps/s  {value:,.3f} "
        f"nats  at most {left} left"
    )
