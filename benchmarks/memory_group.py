"""A process that may hold so much memory and no more, what the system keeps of its files among it:
a memory cgroup of Linux.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
# version 1, version 2: the folder of groups, the files of the limit and of the most that was held,
# in bytes
_VERSIONS = (
    (ROOT / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (ROOT, "memory.max", "memory.peak"),
)


class Group(NamedTuple):
    """A group that processes may enter."""

    # puts this process into it; for a child, before it becomes another program
    enter: Callable[[], None]
    peak_megabytes: Callable[[], float]  # the most that its processes and their files have held


@contextlib.contextmanager
def limited(megabytes: int) -> Iterator[Group]:
    """A new group of that limit, gone at the end.

    Raises:
      OSError: this system makes none, or not for this user.
    """
    folder, limit, peak = next(
        (each for each in _VERSIONS if (each[0] / "cgroup.procs").exists()), _VERSIONS[0]
    )
    group = folder / f"vi_jax_{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(megabytes * 2**20))
        yield Group(
            enter=lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None,
            peak_megabytes=lambda: int((group / peak).read_text()) / 2**20,
        )
    finally:
        group.rmdir()
