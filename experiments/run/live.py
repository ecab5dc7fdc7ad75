"""Progress lines: a live line on a terminal, plain lines at growing intervals elsewhere; rates and
time left.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from experiments.run import heartbeat
from experiments.terminal import WIDTH

FIRST = 3.0  # seconds from the start before the first line of what is soon done
SHORTEST = 10.0  # seconds between plain lines at first
LONGEST = 60.0  # the same after half an hour
GROWTH = 30.0  # lines come so many times more seldom than the seconds since the first
CHUNK = 1.0  # seconds of work that count as one measurement of the rate
CHUNKS = 20  # measurements that the rate is of
OUTLIER_FROM = 4  # measurements, from which on the slowest is left out
DAY = 86_400
_BAR_COLUMNS = 22


def clock(seconds: float) -> str:
    """A duration: `2:03`, `1:02:03`, `3 d 4 h`, `12 years`."""
    if seconds >= 2 * 365 * DAY:
        return f"{seconds / (365 * DAY):,.0f} years"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def per_second(rate: float, unit: str) -> str:
    """A rate: `1,234 steps/s`, `0.14 steps/s`."""
    number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{number} {unit}/s"


class Rate:
    """Units a second over the last measurements, the slowest left out where there are several: a
    program that compiles once more, or a machine that sleeps, does not count.
    """

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, float]] = deque(maxlen=CHUNKS)  # units, seconds

    def add(self, units: float, seconds: float) -> None:
        """Counts work that took so long; leave out what compiles."""
        if self._chunks and self._chunks[-1][1] < CHUNK:
            before = self._chunks.pop()
            units += before[0]
            seconds += before[1]
        self._chunks.append((units, max(seconds, 1e-9)))

    @property
    def value(self) -> float:
        """0 before anything is counted."""
        chunks = sorted(self._chunks, key=lambda chunk: chunk[0] / chunk[1])
        if len(chunks) >= OUTLIER_FROM:
            chunks = chunks[1:]
        seconds = sum(chunk[1] for chunk in chunks)
        return sum(chunk[0] for chunk in chunks) / seconds if seconds else 0.0


class Portions:
    """How much of a long computation to do in one call: one unit, then up to twice as many as
    before while they take no more than `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.size = 1

    def took(self, size: int, seconds: float) -> None:
        """So many units took so long; leave out a call that compiles."""
        pace = max(seconds / size, 1e-9)
        self.size = max(1, min(2 * self.size, int(self._seconds / pace)))


class Schedule:
    """When a plain line is due: at first after SHORTEST seconds, later after up to LONGEST.

    Args:
      first: seconds from now before the first.
      now: seconds, of a clock that does not go back.
    """

    def __init__(self, *, first: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._next = self._began + first

    def is_due(self) -> bool:
        """Whether a line may be shown now."""
        return self._now() >= self._next

    def shown(self) -> None:
        """A line has been shown: the next one is due after a time that grows."""
        now = self._now()
        self._next = now + min(max((now - self._began) / GROWTH, SHORTEST), LONGEST)


class Line:
    """One live line on a terminal; elsewhere (a file, a job's log, above another live line) whole
    lines when they are due.

    Args:
      total, start: units of the bar.
      schedule: of plain lines.
    """

    def __init__(self, *, total: int, start: int = 0, schedule: Schedule | None = None) -> None:
        self._schedule = schedule or Schedule()
        self._bar: Any = None
        heart = heartbeat.current()
        if sys.stderr.isatty() and (heart is None or heart.takes_live_line):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=start,
                bar_format="{percentage:3.0f}%|{bar:12}| {desc}",
                leave=True,
            )
            if heart is not None:
                heart.write_through(lambda text: self._bar.write(text, file=sys.stderr))

    def show(
        self, done: int, text: str, *, short: str = "", always: bool = False, counts: bool = True
    ) -> None:
        """Shows the text: on a terminal at once, elsewhere where a line is due.

        Args:
          done: units, for the bar.
          text: the line.
          short: where the terminal has too few columns for it and the bar, or a plain line more
            than WIDTH.
          always: a plain line is shown whether it is due or not.
          counts: the next plain line waits for a time after this one.
        """
        if self._bar is not None:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            if short and columns < len(text) + _BAR_COLUMNS:
                self._bar.bar_format = "{desc}"  # cut by tqdm at the end
                text = short
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
            heartbeat.sign()
        elif always or self._schedule.is_due():
            if counts:
                self._schedule.shown()
            heartbeat.say(short if short and len(text) > WIDTH else text)

    def say(self, text: str) -> None:
        """Prints a line without breaking the live one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
            heartbeat.sign()
        else:
            heartbeat.say(text)

    def close(self) -> None:
        """Leaves the live line as it stands."""
        if self._bar is not None:
            if (heart := heartbeat.current()) is not None:
                heart.write_through(None)
            self._bar.close()


class Count:
    """Progress of work that is counted: `TEXT: 128 of 10,000 examples, 12.3 examples/s, 2:03 left`.

    Nothing is shown of what is done in FIRST seconds. Use as a context manager.

    Args:
      text: what is done.
      total: units in all.
      unit: in the plural.
      first: seconds before the first line.
    """

    def __init__(
        self,
        text: str,
        total: int,
        unit: str,
        *,
        first: float = FIRST,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._text = text
        self._total = total
        self._unit = unit
        self._now = now
        self._rate = Rate()
        self._done = 0.0
        self._last = now()
        self._is_first = True
        self._line = Line(total=total, schedule=Schedule(first=first, now=now))

    def __enter__(self) -> "Count":
        return self

    def __exit__(self, *exception: object) -> None:
        self._line.close()

    def add(self, units: float) -> None:
        """So many more are done; the first ones compile, and do not count towards the rate."""
        now = self._now()
        if not self._is_first:
            self._rate.add(units, now - self._last)
        self._is_first = False
        self._last = now
        self._done += units
        done = round(self._done)
        text = f"{self._text}: {done:,} of {self._total:,} {self._unit}"
        if rate := self._rate.value:
            left = clock((self._total - self._done) / rate)
            self._line.show(done, f"{text}  {per_second(rate, self._unit)}  {left} left")
