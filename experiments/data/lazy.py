"""Arrays that stay on disk: examples are read, or decoded, when they are indexed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import ahead

BLOCK_BYTES = 2**21  # read at a time
LEAST_ROWS = 64  # of a block: files are decoded side by side

Read = Callable[[np.ndarray], np.ndarray]
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class OnDisk:
    """Reads like an array [N, *shape] for indexing by an int, a slice or an int array; opens files
    when indexed.
    """

    read: Read  # numbers of stored examples [M] -> [M, *example_shape]; its errors reach the reader
    rows: np.ndarray  # the stored examples that these are, [N]
    example_shape: tuple[int, ...]
    dtype: np.dtype
    maps: tuple[np.memmap, ...] = ()  # what is read, where it is maps of whole examples, in a row
    row_bytes: int = 0  # of an example as it is stored
    checksum: str = ""  # of all that is stored, where it is known

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"OnDisk(shape={self.shape}, dtype={self.dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *shape], as of an array."""
        return (len(self.rows), *self.example_shape)

    @property
    def ndim(self) -> int:
        """Number of axes, the examples' one included."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Numbers in all of it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes that all examples take once they are read."""
        return self.size * self.dtype.itemsize

    def take(self, indices: np.ndarray) -> OnDisk:
        """The examples at `indices` [M], still on disk."""
        return replace(self, rows=self.rows[indices])

    def changed(self, change: Change) -> OnDisk:
        """The same examples after a `change` of any number of them, [M, ...] -> [M, ...]."""
        read = self.read
        like = change(np.zeros((1, *self.example_shape), self.dtype))
        return replace(
            self,
            read=lambda rows: change(read(rows)),
            example_shape=like.shape[1:],
            dtype=like.dtype,
            row_bytes=max(self.row_bytes, like.nbytes),
        )

    def remembering(self) -> OnDisk:
        """The same, which keeps what it read last: for views that are read in turn."""
        read_anew = self.read
        last: list[tuple[np.ndarray, np.ndarray]] = []

        def read(rows: np.ndarray) -> np.ndarray:
            for known, found in last[:]:
                if np.array_equal(known, rows):
                    return found
            found = read_anew(rows)
            last[:] = [(rows.copy(), found)]
            return found

        return replace(self, read=read)

    def untold(self) -> OnDisk:
        """The same without its maps: what another view of them has is announced once."""
        return replace(self, maps=())

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(the number of the first, examples [M, *shape]): all of them, some at a time."""
        for start in range(0, len(self), self._step):
            ahead.go_on()
            yield start, self.read(self.rows[start : start + self._step])

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """[*shape] for an int, [M, *shape] otherwise; raises IndexError as numpy does, and what
        `read` raises.
        """
        rows = self.rows[index]
        flat = np.ravel(rows)
        if len(flat) <= self._step:
            found = self.read(flat)
        else:
            found = np.empty((len(flat), *self.example_shape), self.dtype)
            for start in range(0, len(flat), self._step):
                here = slice(start, start + self._step)
                found[here] = self.read(flat[here])
        return found.reshape(*np.shape(rows), *self.example_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory."""
        return np.asarray(self[:], dtype)

    @property
    def _step(self) -> int:
        """Examples of a block."""
        own = self.dtype.itemsize * int(np.prod(self.example_shape, dtype=np.int64))
        return max(LEAST_ROWS, BLOCK_BYTES // max(own, self.row_bytes, 1))


def changed(array: Any, change: Change) -> Any:
    """An array after a `change` of any number of examples: now, or when it is read from disk."""
    return array.changed(change) if isinstance(array, OnDisk) else change(array)


def blocks(array: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(the number of the first, examples): of an array on disk some at a time, else all at once."""
    if isinstance(array, OnDisk):
        yield from array.blocks()
    else:
        yield 0, array


def of_files(
    paths: Sequence[Path],
    decode: Callable[[Path], np.ndarray],
    example_shape: tuple[int, ...],
) -> OnDisk:
    """One file per example, decoded side by side: decoders let go of the interpreter.

    Args:
      paths: of the files.
      decode: path -> uint8 [*example_shape]; it may raise.
      example_shape: (H, W) or (H, W, C).
    """

    def read(rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *example_shape), np.uint8)

        def put(slot: int) -> None:
            out[slot] = decode(paths[rows[slot]])

        with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
            list(pool.map(put, range(len(rows))))
        return out

    return OnDisk(read, np.arange(len(paths)), example_shape, np.dtype(np.uint8))


def of_maps(maps: Sequence[np.memmap]) -> OnDisk:
    """Memory maps [N, *shape] of one shape and type, one after the other."""
    return replace(of_arrays([map_.view(np.ndarray) for map_ in maps]), maps=tuple(maps))


def watched(array: OnDisk, checks: Sequence[Callable[[], None]]) -> OnDisk:
    """The same maps, each with a check before it is read, which may raise."""
    starts = np.cumsum([0, *map(len, array.maps)])

    def read(rows: np.ndarray) -> np.ndarray:
        for number in np.unique(np.searchsorted(starts, rows, side="right") - 1):
            checks[number]()
        return array.read(rows)

    return replace(array, read=read)


def of_arrays(plain: Sequence[np.ndarray]) -> OnDisk:
    """Arrays [N, *shape] of one shape and type, one after the other."""
    starts = np.cumsum([0, *map(len, plain)])

    def read(rows: np.ndarray) -> np.ndarray:
        which = np.searchsorted(starts, rows, side="right") - 1
        first = int(which[0]) if len(rows) else 0
        if len(plain) == 1 or np.all(which == first):
            return _gathered(plain[first], rows - starts[first])
        out = np.empty((len(rows), *plain[0].shape[1:]), plain[0].dtype)
        for number in np.unique(which):
            here = which == number
            out[here] = plain[number][rows[here] - starts[number]]
        return out

    first = plain[0]
    row_bytes = first.nbytes // max(len(first), 1)
    return OnDisk(read, np.arange(starts[-1]), first.shape[1:], first.dtype, row_bytes=row_bytes)


def _gathered(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, a copy; those in a row at once."""
    if len(rows) > 1 and rows[-1] - rows[0] == len(rows) - 1 and np.all(np.diff(rows) == 1):
        return array[rows[0] : rows[-1] + 1].copy()
    return array[rows]
