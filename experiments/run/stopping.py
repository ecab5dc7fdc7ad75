"""SIGTERM and Ctrl-C: a run ends its part of a block of steps, saves, and exits with a code on
which a scheduler runs it again.

A second signal ends the process at once, as it does where nothing listens.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from experiments.cli import Requeue
from experiments.run.processes import any_of_them

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a run has been asked to stop; `with stop.listening():` hears the signals."""

    def __init__(self, kept: str = "nothing is lost") -> None:
        """`kept` says what becomes of the work when a signal is answered where it comes."""
        self._kept = kept
        self._name = ""  # of the signal that came
        self._at_once = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hears SIGTERM and SIGINT; outside of `deferred` they raise `cli.Requeue` where they
        come.
        """
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # Python lets no other thread listen
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, signals are kept for `asked`; one that has been kept and not been asked for is
        raised at the end.
        """
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True
        if self._name:
            raise Requeue(self.sentence(self._kept))

    def asked(self) -> bool:
        """Whether a signal has come, here or in another process of this run."""
        return any_of_them(bool(self._name))

    def sentence(self, what: str) -> str:
        """Says what came and what to do."""
        return (
            f"stopped by {self._name or 'a signal in another process'}; {what}: run the same "
            "command again to go on."
        )

    def _heard(self, number: int, frame: Any) -> None:
        self._name = signal.Signals(number).name
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # the second one ends the process
        if self._at_once:
            raise Requeue(self.sentence(self._kept))
