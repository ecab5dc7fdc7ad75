"""Heartbeat: after a time without a sign of progress, a line on stderr says what is being done.

    with heartbeat.beating():                          # a command, once
        with heartbeat.phase("reading the data"):      # any code that it calls
            ...

A daemon thread watches the clock, so that a phase inside one call (a compiler, a download, a long
program on the device) is named too. `phase`, `sign` and `say` do nothing of their own where no
heartbeat runs: a library call or a test prints nothing that it did not ask for.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from experiments import terminal

SHORTEST = 30.0  # seconds of silence before a line
LONGEST = 90.0  # the same where something has run for long, so that a log is not flooded
GROWTH = 20.0  # a job of GROWTH x 30 s may be silent for longer than 30 s
COMPILING = 15.0  # seconds of silence in a phase that compiles: there nothing else gives a sign
STILL = 5.0  # seconds from which on a phase is "still", not "now"


class Phase(NamedTuple):
    """What is being done, since when (seconds), and the silence it may keep at first."""

    text: str
    began: float
    patience: float


class Heartbeat:
    """Names the phase that runs after a time of silence, from a thread; use as a context manager.

    Args:
      now: seconds, of a clock that does not go back.
      write: prints one line.
      shortest, longest: seconds of silence before a line, at first and after hours.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
        shortest: float = SHORTEST,
        longest: float = LONGEST,
    ) -> None:
        self._now = now
        self._write = write or write_line
        self._through: Callable[[str], None] | None = None
        self._shortest = shortest
        self._longest = longest
        self._is_muted = False
        self._lock = threading.RLock()
        self._phases = [Phase("starting", now(), shortest)]
        self._signed = now()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=1.0)  # a thread that writes while Python ends would crash it

    @contextlib.contextmanager
    def phase(self, text: str, *, patience: float) -> Iterator[None]:
        """Names what is done inside; phases may be nested, and the innermost is the one named."""
        with self._lock:
            self._phases.append(Phase(text, self._now(), patience))
        try:
            yield
        finally:
            with self._lock:
                self._phases.pop()
                if len(self._phases) == 1:
                    self._phases[0] = Phase("working", self._now(), self._shortest)

    def rename(self, text: str) -> None:
        """The innermost phase is over, and another one begins in its place."""
        with self._lock:
            self._phases[-1] = Phase(text, self._now(), self._phases[-1].patience)

    def sign(self) -> None:
        """Something has been shown: the silence begins anew."""
        self._signed = self._now()

    def say(self, text: str) -> None:
        """Writes a line, whole, clear of the live line; it is a sign."""
        with self._lock:
            if not self._is_muted:
                (self._through or self._write)(terminal.fitted(text, sys.stderr))
            self.sign()

    def write_through(self, write: Callable[[str], None] | None) -> None:
        """Lines go through `write` while a live line is on the terminal; None: as before."""
        with self._lock:
            self._through = write

    @property
    def takes_live_line(self) -> bool:
        """Whether the terminal has no live line yet, and this process speaks."""
        return self._through is None and not self._is_muted

    def mute(self) -> None:
        """Prints nothing any more: one process of several speaks."""
        self._is_muted = True

    def beat(self) -> float:
        """Prints a line where one is due; returns the seconds until the next look."""
        with self._lock:
            phase = self._phases[-1]
            now = self._now()
            if self._due() <= now:
                self.say(_line(phase, now - phase.began))
            return max(self._due() - now, 0.01)

    def _due(self) -> float:
        """When a line is due, if no sign comes before."""
        phase = self._phases[-1]
        outermost = self._phases[min(1, len(self._phases) - 1)]
        age = self._now() - outermost.began
        silence = min(max(age / GROWTH, self._shortest), self._longest)
        if phase.began >= self._signed:
            silence = min(silence, phase.began - self._signed + phase.patience)
        return self._signed + silence

    def _watch(self) -> None:
        """Beats until the end; stderr that takes no more lines (a closed pipe) ends it sooner."""
        with contextlib.suppress(OSError, ValueError):
            while not self._stopped.wait(min(self.beat(), self._shortest / 10)):
                pass


_CURRENT: ContextVar[Heartbeat | None] = ContextVar("heartbeat", default=None)


@contextlib.contextmanager
def beating(heart: Heartbeat | None = None) -> Iterator[Heartbeat]:
    """A heartbeat for all that is called inside."""
    with heart or Heartbeat() as heart:
        token = _CURRENT.set(heart)
        try:
            yield heart
        finally:
            _CURRENT.reset(token)


def current() -> Heartbeat | None:
    """The heartbeat that runs, if one does."""
    return _CURRENT.get()


@contextlib.contextmanager
def phase(text: str, *, patience: float = SHORTEST) -> Iterator[None]:
    """Names what is done inside, as in "still reading the data (35 s)".

    Args:
      text: begins with a verb in -ing.
      patience: seconds without a sign before the first such line.
    """
    heart = current()
    if heart is None:
        yield
        return
    with heart.phase(text, patience=patience):
        yield


def compiling(text: str) -> contextlib.AbstractContextManager[None]:
    """A phase that compiles a program: its first line comes sooner."""
    return phase(text, patience=COMPILING)


def rename(text: str) -> None:
    """The innermost phase is over, and another one begins in its place."""
    heart = current()
    if heart is not None:
        heart.rename(text)


def sign() -> None:
    """Something has been shown: the silence begins anew."""
    heart = current()
    if heart is not None:
        heart.sign()


def say(text: str) -> None:
    """A line on stderr, clear of the live line; it is a sign."""
    heart = current()
    if heart is not None:
        heart.say(text)
    else:
        write_line(text)


def write_line(text: str) -> None:
    """Writes a line on stderr at once: two threads' lines do not mix."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _line(phase: Phase, age: float) -> str:
    if age < STILL:
        return f"now {phase.text}"
    return f"still {phase.text} ({_seconds(age)})"


def _seconds(age: float) -> str:
    if age < 120:
        return f"{age:.0f} s"
    minutes = round(age / 60)
    return f"{minutes} min" if minutes < 120 else f"{age / 3600:.1f} h"
