"""TensorBoard's events, written in this thread: one of its own would die of a full disk, and the
run wait for it for ever.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 10.0


class Board:
    """Scalars by step, in a new file of a folder; what the disk refuses is an OSError.

    Args:
      folder: made when the first number is written.
      from_step: where a run goes on; TensorBoard hides what earlier files have after it. 0 is a new
        run.
    """

    def __init__(self, folder: Path, *, from_step: int) -> None:
        self._folder = folder
        self._from_step = from_step
        self._writer: Any = None
        self._flushed = time.monotonic()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Appends numbers; they are on the disk within ten seconds of writing more, or when the
        board is closed.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._writer = self._open()
            if self._from_step:
                self._put(
                    Event(step=self._from_step + 1, session_log=SessionLog(status=SessionLog.START))
                )
        for name, value in numbers.items():
            self._put(Event(step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        writer = self._writer
        self._writer = None
        if writer is not None:
            try:
                writer.close()
            except OSError:
                with contextlib.suppress(
                    OSError
                ):  # else it tries again when it is forgotten, and prints a traceback
                    writer._py_recordio_writer.close()
                raise

    def _open(self) -> Any:
        from tensorboardX.event_file_writer import (
            EventsWriter,
        )  # takes longer to import than the first steps do to run

        self._folder.mkdir(parents=True, exist_ok=True)
        # Its own name has the second in it, and two starts in one second, or after the clock went
        # back, would share a file.
        return EventsWriter(str(self._folder / "events"), f".{self._from_step}.{os.getpid()}")

    def _put(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
