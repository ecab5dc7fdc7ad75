"""Rows at random of a file that is mapped into memory and larger than what memory holds of it.

A row that is not there is a page fault: the reader waits for the disk, and the kernel, which
expects the next rows to be wanted, reads megabytes around it. Told beforehand what will be read, it
reads just that, many rows at once, and nobody waits.
"""

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.data.lazy import OnDisk

Announce = Callable[[np.ndarray], None]


def make_announce(data: Any) -> Announce | None:
    """`announce(rows)`: the kernel begins to read these rows of a memory map; None for data that
    are none.

    Args:
      data: an `OnDisk` of memory maps, or a memory map: where it is a `np.memmap` of whole rows
        [N, ...], or a slice of one, its map is told of reads at random, too.
    """
    if isinstance(data, OnDisk):
        return _of_several(data)
    source = getattr(data, "_mmap", None)
    if (
        not isinstance(data, np.memmap)
        or not isinstance(source, mmap.mmap)
        or not hasattr(mmap, "MADV_WILLNEED")
    ):
        return None
    if not data[:1].flags.c_contiguous or data.strides[0] <= 0 or not data.nbytes:
        return None
    start = (
        data.ctypes.data - np.frombuffer(source, np.uint8).ctypes.data
    )  # of the first row in the map
    stride = data.strides[0]
    size = data[:1].nbytes
    page = mmap.PAGESIZE
    source.madvise(mmap.MADV_RANDOM)

    def announce(rows: np.ndarray) -> None:
        first = start + np.asarray(rows, np.int64) * stride
        begins = first // page * page  # advice is of whole pages
        for begin, length in zip(begins.tolist(), (first + size - begins).tolist(), strict=True):
            source.madvise(mmap.MADV_WILLNEED, begin, length)

    return announce


def _of_several(data: OnDisk) -> Announce | None:
    """Of rows of maps that lie one after the other."""
    found = [make_announce(each) for each in data.maps]
    starts = np.cumsum([0, *(len(each) for each in data.maps)])
    if not any(found):
        return None

    def announce(rows: np.ndarray) -> None:
        stored = data.rows[rows]
        which = np.searchsorted(starts, stored, side="right") - 1
        for number in np.unique(which):
            of_map = found[number]
            if of_map is not None:
                of_map(stored[which == number] - starts[number])

    return announce
