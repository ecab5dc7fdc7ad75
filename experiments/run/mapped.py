"""Rows at random of a file that is mapped into memory and larger than what memory holds of it.

A row that is not there is a page fault: the reader waits for the disk, and the kernel, which
expects the next rows to be wanted, reads megabytes around it. Told beforehand what will be read, it
reads just that, many rows at once, and nobody waits.
"""

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

Announce = Callable[[np.ndarray], None]


def make_announce(data: Any) -> Announce | None:
    """`announce(rows)`: the kernel begins to read these rows of a memory map; None for data that
    are none.

    Args:
      data: where it is a `np.memmap` of whole rows [N, ...], or a slice of one, its map is told of
        reads at random, too.
    """
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
