"""From the numbers of images to pixel values of 8 bits, or of 16 where config.data.depth is full:
which number is black and which is white, recognised from all splits together, or given by
config.data.scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from experiments.data import lazy
from experiments.data.base import DataError, say

NUM_LEVELS = 256
DEEP_LEVELS = 2**16  # of config.data.depth=full
FEW_LEVELS = 32  # whole numbers up to this are so many levels, and not dark 8-bit images
DEPTHS = (10, 12, 14, 16)  # bits that cameras and scanners give
NEAR = 1e-3  # that resampling may overshoot by
BRIGHT = 64.0  # floats that get so far are to 255
ROUNDED = f"rounded to {NUM_LEVELS} levels"  # in the note of a scale that loses digits
CHUNK = 2**24  # numbers that are converted at a time


class Scale(NamedTuple):
    """The numbers that become the lowest and the highest level."""

    black: float
    white: float
    num_levels: int
    note: str = ""  # what is done to the numbers; "" where nothing is


def as_levels(
    arrays: Mapping[str, Any],
    asked: tuple[float, float] | None,
    where: str,
    *,
    is_deep: bool = False,
) -> tuple[dict[str, Any], int]:
    """Arrays [N, *shape] as uint8 levels of one scale, or uint16 ones, and the number of levels.

    Args:
      arrays: bools, integers or floats, by split, in memory or on disk.
      asked: the numbers that are black and white; None: recognised, and said where it changes
        anything.
      where: for messages.
      is_deep: whether what has more than 8 bits, floats too, keeps DEEP_LEVELS levels.

    Raises:
      DataError: the splits differ in their type, or their numbers are not known to be pixels.
    """
    kinds = {_kind(array, where) for array in arrays.values()}
    if len(kinds) > 1:
        raise DataError(
            f"{where} holds {' and '.join(sorted(kinds))} in splits that were wanted of one type; "
            "save both alike."
        )
    kind = kinds.pop()
    (arrays, looks) = _looked_at(arrays)
    if kind == "bools":
        return {split: _as_bytes(array) for split, array in arrays.items()}, 2
    (low, high) = _range(looks, where)
    if asked is not None:
        scale = _asked(asked, low, high, kind)
    else:
        first = next(iter(arrays.values()))
        is_binary = all(look.is_binary for look in looks)
        scale = _recognised(first, low, high, where, is_binary=is_binary)
    if is_deep and scale.num_levels == NUM_LEVELS and not _is_kept(kind == "integers", scale):
        scale = _deep(scale)
    if scale.note:
        say(f"{where} holds {scale.note}.")
    convert = partial(_convert, scale=scale)
    read = {split: lazy.changed(array, convert) for split, array in arrays.items()}
    return read, scale.num_levels


def _range(looks: "Sequence[_Look]", where: str) -> tuple[float, float]:
    """The lowest and the highest number; raises DataError where one is not finite."""
    low = min(look.low for look in looks)
    high = max(look.high for look in looks)
    if not np.isfinite([low, high]).all():
        raise DataError(
            f"{where} holds nan or infinite numbers, where pixels were wanted; fill them, such as "
            "by np.nan_to_num, or read the array as a table or as sequences with missing values by "
            "--config.data.kind=table or sequences."
        )
    return low, high


class _Look(NamedTuple):
    """What is seen of the numbers of an array."""

    low: float
    high: float
    is_binary: bool  # floats that are only 0 and 1
    total: float  # of an array on disk


def _looked_at(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], list[_Look]]:
    """The arrays, those on disk with a checksum, and what is seen in one pass over each."""
    read = {}
    looks = []
    for split, array in arrays.items():
        look = _look(array)
        is_on_disk = isinstance(array, lazy.OnDisk)
        read[split] = replace(array, checksum=f"{look.total!r}") if is_on_disk else array
        looks.append(look)
    return read, looks


def _look(array: Any) -> _Look:
    lows = []
    highs = []
    total = 0.0
    is_binary = array.dtype.kind == "f"
    for _, part in lazy.blocks(array):
        lows.append(part.min())
        highs.append(part.max())
        is_binary = is_binary and bool(np.all((part == 0) | (part == 1)))
        if isinstance(array, lazy.OnDisk):
            total += float(part.sum(dtype=np.float64))
    return _Look(float(np.min(lows)), float(np.max(highs)), is_binary, total)


def _as_bytes(array: Any) -> Any:
    return lazy.changed(array, lambda rows: rows.astype(np.uint8))


def _recognised(array: Any, low: float, high: float, where: str, *, is_binary: bool) -> Scale:
    """The scale that the numbers of all splits show, of which one is given."""
    if np.issubdtype(array.dtype, np.integer):
        return _of_integers(low, high, array.ndim, where)
    return _of_floats(low, high, is_binary, where)


def _kind(array: Any, where: str) -> str:
    if array.dtype == bool:
        return "bools"
    if np.issubdtype(array.dtype, np.integer):
        return "integers"
    if np.issubdtype(array.dtype, np.floating):
        return "floats"
    raise DataError(
        f"{where} has dtype {array.dtype}; images are wanted as bools, integers in 0..255 or "
        "floats in [0, 1]."
    )


def _asked(asked: tuple[float, float], low: float, high: float, kind: str) -> Scale:
    """The scale of config.data.scale; integers up to 255 keep their values."""
    (black, white) = asked
    outside = ""
    if low < black or high > white:
        outside = f"; what lies outside of {black:g} to {white:g} is clipped"
    if kind == "integers" and black == 0 and white.is_integer() and white < NUM_LEVELS:
        note = f"integers in {low:.0f}..{high:.0f}{outside}" if outside else ""
        return Scale(black, white, int(white) + 1, note)
    return Scale(
        black,
        white,
        NUM_LEVELS,
        f"{kind} in [{low:.6g}, {high:.6g}]: {black:g} is black and {white:g} is white, {ROUNDED}"
        f"{outside}",
    )


def _of_integers(low: float, high: float, ndim: int, where: str) -> Scale:
    """0 and 1; few levels; 8 bits as they are; or 10 to 16 bits, of images alone."""
    if low >= 0 and high <= 1:
        return Scale(0, 1, 2)
    if low >= 0 and high <= FEW_LEVELS and ndim >= 3:
        return Scale(
            0,
            high,
            int(high) + 1,
            f"integers in {low:.0f}..{high:.0f}: read as {high + 1:.0f} levels, of which "
            f"{high:.0f} is white; --config.data.scale=255 reads dark 8-bit images",
        )
    if low >= 0 and high <= 255:
        return Scale(0, 255, NUM_LEVELS)
    for bits in DEPTHS:
        white = 2**bits - 1
        if low >= 0 and high <= white and ndim >= 3:
            return Scale(
                0,
                white,
                NUM_LEVELS,
                f"integers in {low:.0f}..{high:.0f}: taken for {bits} bits, {white:,} is white, "
                f"and {ROUNDED}; --config.data.scale=WHITE says another",
            )
    raise DataError(
        f"{where} holds integers in {low:.0f}..{high:.0f}, where images are wanted in 0..255: say "
        f"which are black and white, as --config.data.scale={low:.0f}:{high:.0f}, or read a table "
        "by --config.data.kind=table."
    )


def _of_floats(low: float, high: float, is_binary: bool, where: str) -> Scale:
    """0 and 1; [0, 1]; [-1, 1]; or to 255."""
    found = f"floats in [{low:.6g}, {high:.6g}]"
    if is_binary:
        return Scale(0, 1, 2, "only the floats 0 and 1: read as 2 levels")
    if low >= -NEAR and high <= 1 + NEAR:
        return Scale(0, 1, NUM_LEVELS, f"{found}: {ROUNDED}, 0..255")
    if -1 - NEAR <= low <= -0.5 and 0 < high <= 1 + NEAR:
        return Scale(
            -1,
            1,
            NUM_LEVELS,
            f"{found}: -1 is black and 1 is white, {ROUNDED}",
        )
    if low >= -255 * NEAR and BRIGHT <= high <= 255 * (1 + NEAR):
        return Scale(0, 255, NUM_LEVELS, f"{found}: 255 is white, {ROUNDED}, 0..255")
    raise DataError(
        f"{where} holds {found}, of which black and white are not known: say them, as "
        f"--config.data.scale={low:.6g}:{high:.6g}, unit for [0, 1], symmetric for [-1, 1] or 255; "
        "or read a table, or sequences [N, T, D], by --config.data.kind=table or sequences."
    )


def _is_kept(are_integers: bool, scale: Scale) -> bool:
    """Whether numbers are levels as they stand."""
    return are_integers and (scale.black, scale.white) == (0, scale.num_levels - 1)


def _deep(scale: Scale) -> Scale:
    """The same scale in DEEP_LEVELS levels."""
    kept = f"kept in {DEEP_LEVELS:,} levels (config.data.depth=full)"
    note = scale.note.replace(f"{ROUNDED}, 0..255", kept).replace(ROUNDED, kept)
    return scale._replace(num_levels=DEEP_LEVELS, note=note)


def _convert(array: np.ndarray, scale: Scale) -> np.ndarray:
    """Levels, the nearest of each number, uint8, or uint16 where they are more; some rows at a
    time, which bounds the memory.
    """
    top = scale.num_levels - 1
    is_kept = _is_kept(np.issubdtype(array.dtype, np.integer), scale)
    out = np.empty(array.shape, np.uint8 if top < NUM_LEVELS else np.uint16)
    step = max(1, CHUNK // max(1, array[0].size))
    for start in range(0, len(array), step):
        rows = array[start : start + step]
        if is_kept:
            out[start : start + step] = np.clip(rows, 0, top)
            continue
        unit = (rows.astype(np.float64) - scale.black) / (scale.white - scale.black)
        out[start : start + step] = np.rint(np.clip(unit, 0, 1) * top)
    return out
