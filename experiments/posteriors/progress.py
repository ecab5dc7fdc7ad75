"""The lines that say how far a fit is: step, rate, value, and the most that is left."""

import time
from collections.abc import Callable
from typing import Any

from experiments.run.live import Line, Rate, Schedule, clock, per_second


class FitProgress:
    """`report` of vi.fit with `report_every=None`: shows a line on stderr, from the second report
    of a method on, when a rate is known.

    Args:
      totals: the most steps of each method that the fit may run, one after another; a step number
        that falls is the next one's.
      now: seconds, of a clock that does not go back.
    """

    def __init__(self, totals: list[int], now: Callable[[], float] = time.monotonic) -> None:
        self._totals = totals
        self._now = now
        self._last = 0
        self._reported = 0.0
        self._rate = Rate()
        self._line: Line | None = None

    def __call__(self, step: int, value: float) -> None:
        now = self._now()
        if self._line is not None and step <= self._last:
            self.close()
            self._totals = self._totals[1:]
        if self._line is None:
            self._rate = Rate()  # what came before the first report was compiled
            total = self._totals[0] if self._totals else 0
            self._line = Line(total=total, schedule=Schedule(now=self._now))
        else:
            self._rate.add(step - self._last, now - self._reported)
            self._line.show(step, self._text(step, value))
        self._last = step
        self._reported = now

    def close(self) -> None:
        """Leaves a live line as it stands."""
        if self._line is not None:
            self._line.close()
        self._line = None

    def _text(self, step: int, value: float) -> str:
        rate = self._rate.value
        of = ""
        left = ""
        if self._totals:
            of = f"/{self._totals[0]:,}"
            left = f"  at most {clock(max(self._totals[0] - step, 0) / rate)} left"
        return f"step {step:,}{of}  {per_second(rate, 'steps')}  {value:,.3f} nats{left}"


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
