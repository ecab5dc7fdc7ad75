"""TensorBoard's events, written in this thread: one of its own would die of a full disk, and the
run wait for it for ever.
"""

import itertools
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, BinaryIO

from vi_jax import files

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
        self._file: BinaryIO | None = None
        self._flushed = time.monotonic()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Appends numbers; they are on the disk within ten seconds of writing more, or when the
        board is closed.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        if self._file is None:
            self._file = self._open()
            _put(self._file, Event(file_version="brain.Event:2"))
            if self._from_step:
                start = SessionLog(status=SessionLog.START)
                _put(self._file, Event(step=self._from_step + 1, session_log=start))
        for name, value in numbers.items():
            _put(self._file, Event(step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        file = self._file
        self._file = None
        if file is not None:
            file.close()

    def _open(self) -> BinaryIO:
        """A file of its own, also where another start was in the same second or the clock went
        back.
        """
        files.make_folder(self._folder)
        stem = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{self._from_step}"
        for number in itertools.count():
            try:
                return files.create(self._folder / f"{stem}.{os.getpid()}.{number}")
            except FileExistsError:
                continue
        raise AssertionError("unreachable")


def _put(file: BinaryIO, event: Any) -> None:
    """Appends an event, as a record of TFRecord: its length, a checksum of that, the event, a
    checksum.
    """
    event.wall_time = time.time()
    record = event.SerializeToString()
    length = struct.pack("<Q", len(record))
    file.write(length + _masked_crc(length) + record + _masked_crc(record))


def _masked_crc(content: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord has it (tensorflow/core/lib/hash/crc32c.h)."""
    from tensorboardX.crc32c import crc32c

    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
