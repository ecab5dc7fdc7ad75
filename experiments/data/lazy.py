"""Images that stay on disk: sets too large to hold are decoded batch by batch, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


class LazyImages:
    """Reads like a uint8 array [N, *shape] for indexing by an int, a slice or an int array; decodes
    when indexed.

    Args:
      paths: one file per example.
      decode: path -> uint8 [*shape]; it may raise, and what it raises reaches whoever indexes.
      example_shape: (H, W) or (H, W, 3).
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        paths: Sequence[Path],
        decode: Callable[[Path], np.ndarray],
        example_shape: tuple[int, ...],
    ):
        self._paths = tuple(paths)
        self._decode = decode
        self._example_shape = tuple(example_shape)

    def __len__(self) -> int:
        return len(self._paths)

    def __repr__(self) -> str:
        return f"LazyImages(shape={self.shape})"

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *shape], as of an array."""
        return (len(self._paths), *self._example_shape)

    @property
    def ndim(self) -> int:
        """Number of axes, the examples' one included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all examples take once decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def take(self, indices: np.ndarray) -> LazyImages:
        """The examples at `indices` [M], still on disk."""
        return LazyImages([self._paths[i] for i in indices], self._decode, self._example_shape)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """uint8 [*shape] for an int, [M, *shape] otherwise; raises IndexError as numpy does, and
        what `decode` " "raises.
        """
        rows = np.arange(len(self))[index]
        return self._gather(rows.ravel()).reshape(*rows.shape, *self._example_shape)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Decodes the rows [M] side by side: image decoders let go of the interpreter while they
        work.
        """
        out = np.empty((len(rows), *self._example_shape), np.uint8)

        def put(slot: int) -> None:
            out[slot] = self._decode(self._paths[rows[slot]])

        with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
            list(pool.map(put, range(len(rows))))
        return out
