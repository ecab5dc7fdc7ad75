"""Work that is begun ahead, in a thread: a file is read while the command still imports JAX.

    with Ahead(lambda: load(config.data)) as ahead:
        ...
        dataset = ahead.result()

What it says and what it raises come out where the result is asked for, as if the work were done
there.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from experiments import terminal

Result = TypeVar("Result")


class Abandoned(BaseException):
    """Nobody waits for the work any more."""


class Ahead(Generic[Result]):
    """Work in a thread of its own; use as a context manager, which the thread does not outlive.

    Args:
      work: is called once. Where it takes long, it calls `go_on` now and then.
      patience: seconds that `settle` waits.
    """

    def __init__(self, work: Callable[[], Result], *, patience: float = 0.0) -> None:
        self._work = work
        self._patience = patience
        self._future: Future[Result] = Future()
        self._notes: list[str] = []
        self._is_abandoned = threading.Event()
        # a daemon: a second Ctrl-C ends the command while it waits for the thread
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> "Ahead[Result]":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_abandoned.set()
        self._thread.join()

    def result(self) -> Result:
        """What the work returned, once it is done; the same each time.

        Raises:
          BaseException: what the work raised.
        """
        try:
            return self._future.result()
        finally:
            for note in self._notes:
                _write(note)
            self._notes.clear()

    def settle(self) -> None:
        """Waits for the work as long as it has patience, so that what it refuses is said at once.

        Raises:
          BaseException: what the work raised by then.
        """
        try:
            error = self._future.exception(self._patience)
        except TimeoutError:
            return
        if error is not None:
            self.result()

    def keep(self, note: str) -> None:
        """Keeps a line for whoever asks for the result."""
        self._notes.append(note)

    def go_on(self) -> None:
        """Raises Abandoned where nobody waits any more."""
        if self._is_abandoned.is_set():
            raise Abandoned

    def _run(self) -> None:
        _CURRENT.set(self)
        try:
            result = self._work()
        except BaseException as error:  # raised again by `result`
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


# of a thread: each begins with a context of its own
_CURRENT: ContextVar[Ahead[Any] | None] = ContextVar("ahead", default=None)


def go_on() -> None:
    """Raises Abandoned where this thread works ahead and nobody waits for it any more."""
    current = _CURRENT.get()
    if current is not None:
        current.go_on()


def say(line: str) -> None:
    """A line on stderr: now, or of work that is ahead once its result is asked for."""
    current = _CURRENT.get()
    if current is None:
        _write(line)
    else:
        current.keep(line)


def _write(line: str) -> None:
    terminal.say(line)
