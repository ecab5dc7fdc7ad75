"""Memory that this process can still have: of the machine, its control group, its limits, its
accelerators.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # bytes; version 1 of control groups writes a number above it for none


class AtHand(NamedTuple):
    """Bytes, and where the limit comes from, in words."""

    num_bytes: float
    source: str


def at_hand() -> AtHand:
    """What the arrays of a program can take: on all accelerators together, where there are some.

    Infinite where nothing is known. Of several processes each is taken to have what this one has.
    """
    import jax

    accelerators = [device for device in jax.local_devices() if device.platform != "cpu"]
    if accelerators:
        here = AtHand(
            sum(_of_device(device) for device in accelerators),
            f"on {len(accelerators)} x {accelerators[0].device_kind}",
        )
    else:
        here = of_host()
    return here._replace(num_bytes=here.num_bytes * jax.process_count())


def of_host() -> AtHand:
    """What this process can have of the machine's own memory."""
    found = [*_of_machine(), *_of_groups(), *_of_process()]
    return min(found, default=AtHand(float("inf"), "of a machine that does not say"))


def _of_device(device: Any) -> float:
    """Bytes of an accelerator that are free, infinite where it does not say."""
    statistics = device.memory_stats() or {}
    if "bytes_limit" not in statistics:
        return float("inf")
    return float(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))


def _of_machine(path: Path = Path("/proc/meminfo")) -> Iterator[AtHand]:
    """Free memory with what the kernel can give back, and the swap that is free."""
    text = _read(path)
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M))
    if "MemAvailable" in found:
        kilobytes = int(found["MemAvailable"]) + int(found.get("SwapFree", 0))
        yield AtHand(kilobytes * 1024.0, "free on this machine")


def _of_groups(
    root: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")
) -> Iterator[AtHand]:
    """The room that is left in the control group of this process and in those around it."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            yield from _of_group(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            limit = "memory.limit_in_bytes"
            usage = "memory.usage_in_bytes"
            yield from _of_group(root / "memory", path, limit, usage, "total_inactive_file")


def _of_group(root: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[AtHand]:
    """Of a group and those around it; pages of files that are not in use count as free."""
    inside = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(inside) + 1):
        folder = root.joinpath(*inside[:depth])
        most = _read(folder / limit).strip()
        if not most.isdecimal() or int(most) >= _NO_LIMIT:
            continue
        used = int(_read(folder / usage).strip() or 0)
        kept = re.search(rf"^{cache} (\d+)$", _read(folder / "memory.stat"), re.M)
        free = int(most) - used + (int(kept[1]) if kept else 0)
        yield AtHand(max(float(free), 0.0), "left in the control group of this process")


def _of_process() -> Iterator[AtHand]:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return
    pages = (_read(Path("/proc/self/statm")).split() or ["0"])[0]
    used = int(pages) * os.sysconf("SC_PAGE_SIZE")
    yield AtHand(max(float(most - used), 0.0), "left of this process's limit (ulimit -v)")


def _read(path: Path) -> str:
    """A file of the kernel's, "" where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""


def in_words(count: float) -> str:
    """Bytes as `4.2 TB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:,.{0 if count >= 100 or unit == 'bytes' else 1}f} {unit}"
        count /= 1000
    raise AssertionError
