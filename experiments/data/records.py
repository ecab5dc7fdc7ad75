"""The records of a prepared TFDS split: decoded all at once, or from their array_record files when
they are asked for.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import features
from experiments.data.base import DataError, say
from experiments.data.examples import parse_example
from experiments.data.lazy import OnDisk
from experiments.data.threads import threaded
from vi_jax import files

CHUNK = 1024  # records decoded at a time
MOST_OPEN = 128  # files, of a split on disk

Known = dict[str, features.Feature]
Read = tuple[np.ndarray | OnDisk, np.ndarray | None]


class Split(NamedTuple):
    """A split as dataset_info.json describes it: its files in order, and its number of records."""

    files: list[Path]
    num_records: int


def in_memory(split: Split, known: Known, shape: tuple[int, ...], what: str) -> Read:
    """Images [N, *shape] and labels [N] or None of the files of a split.

    Raises:
      Exception: a damaged file fails in many ways.
    """
    chunks = [np.empty((0, *shape), np.uint8)]
    labels: list[int] = []
    for found in _counted(split, what):
        chunks.append(np.stack([features.decode(known["image"], one["image"]) for one in found]))
        labels += _labels(found, known)
    images = np.concatenate(chunks)
    return images, np.array(labels, np.int64) if features.has_label(known) else None


def on_disk(split: Split, known: Known, shape: tuple[int, ...], what: str) -> Read:
    """The same, with images that are decoded when they are indexed. All records are read once, for
    their labels and their number.

    Raises:
      Exception: as above; DataError later, where a record is damaged.
    """
    labels: list[int] = []
    for found in _counted(split, what):
        labels += _labels(found, known)
    readers = _Readers(split.files)

    def decode(record: bytes) -> np.ndarray:
        return features.decode(known["image"], parse_example(record)["image"])

    def read(rows: np.ndarray) -> np.ndarray:
        try:
            found = threaded(decode, readers.read(rows))
        except Exception as error:  # of damage in many ways
            where = split.files[0].parent
            raise DataError(f"{where}: a record of {what} cannot be read ({error}).") from error
        return np.stack(found) if found else np.empty((0, *shape), np.uint8)

    images = OnDisk(read, np.arange(split.num_records), shape, np.dtype(np.uint8))
    if shape[-1] == 1 and len(shape) == 3:
        images = images.changed(_grey)
    return images, np.array(labels, np.int64) if features.has_label(known) else None


def _grey(images: np.ndarray) -> np.ndarray:
    return images[..., 0]


def _labels(found: list[dict[str, Any]], known: Known) -> list[int]:
    if not features.has_label(known):
        return []
    return [features.decode_label(one["label"]) for one in found]


def _counted(split: Split, what: str) -> Iterator[list[dict[str, Any]]]:
    """The parsed records of a split, CHUNK at a time, with progress.

    Raises:
      ValueError: there are more or fewer than are described.
    """
    num_records = sum(_num_records(path) for path in split.files)
    if num_records != split.num_records:
        raise ValueError(f"{num_records} records, where {split.num_records} are described")
    done = 0
    spoken = time.monotonic()
    for chunk in _chunks(split):
        yield [parse_example(record) for record in chunk]
        done += len(chunk)
        if time.monotonic() - spoken > 2:
            spoken = time.monotonic()
            say(f"tfds:{what}: {done} of {split.num_records}")


def _num_records(path: Path) -> int:
    """What the end of a file says, before anything of it is decoded."""
    reader = _open(path)
    try:
        return int(reader.num_records())
    finally:
        reader.close()


def _chunks(split: Split) -> Iterator[list[bytes]]:
    """The records of a split, CHUNK at a time."""
    for path in split.files:
        reader = _open(path)
        num_records = reader.num_records()
        for start in range(0, num_records, CHUNK):
            yield reader.read(start, min(start + CHUNK, num_records))
        reader.close()


def _open(path: Path) -> Any:
    from array_record.python import array_record_module

    files.open_regular(path, follow=True).close()  # which the reader does not ask
    return array_record_module.ArrayRecordReader(str(path))


class _Readers:
    """The open files of a split, those that were used last; one thread at a time."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        sizes = [_num_records(path) for path in paths]
        self._starts = np.cumsum([0, *sizes])

    def read(self, rows: np.ndarray) -> list[bytes]:
        """The records at `rows` [M], in their order."""
        found: list[bytes] = [b""] * len(rows)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        with self._lock:
            for number in np.unique(which):
                places = np.flatnonzero(which == number)
                own = rows[places] - self._starts[number]
                records = self._reader(int(number)).read(own.tolist())
                for place, record in zip(places, records, strict=True):
                    found[place] = record
        return found

    def _reader(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[number] = _open(self._paths[number])
        return self._open[number]
