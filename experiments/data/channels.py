"""Which axis of an array of images holds the channels: [N, H, W], [N, H, W, C], [N, C, H, W],
volumes [N, H, W, D].
"""

from functools import partial
from typing import Any

import numpy as np

from experiments.data import lazy
from experiments.data.base import DataError, say

COMMON = (1, 3)  # channels: grey, colour
MAX_RANK = 4  # axes of an example: H, W, D, C
MOST = 4  # red, green, blue, alpha: a longer last axis is the depth of a volume


def channels_last(arrays: dict[str, Any], asked: str, where: str) -> dict[str, Any]:
    """Arrays [N, *shape] of one layout with the channels in the last axis, an axis of one channel
    dropped.

    Args:
      arrays: by split, in memory or on disk; views are returned.
      asked: first, last or auto: as the sizes of the axes say, and said.
      where: for messages.

    Raises:
      DataError: the sizes do not say which axis it is, or there are too many axes.
    """
    shapes = {array.shape[1:] for array in arrays.values()}
    moves = {shape: is_first(shape, asked, where) for shape in shapes}
    read = {
        split: lazy.changed(array, partial(_move, moves=moves[array.shape[1:]]))
        for split, array in arrays.items()
    }
    shape = shapes.pop()
    if shapes:  # of several shapes, which is refused where splits are compared
        return read
    if moves[shape] and asked == "auto":
        say(
            f"{where} has shape {_named(shape)}: channels first, read as [N, H, W, C]; "
            "--config.data.channels=last leaves the axes as they are."
        )
    _say_unusual(next(iter(read.values())).shape[1:], where)
    return read


def is_first(shape: tuple[int, ...], asked: str, where: str) -> bool:
    """Whether an example of a shape has its channels in the first axis; raises DataError."""
    rank = len(shape)
    if rank < 3:
        return False
    if rank > MAX_RANK:
        raise DataError(
            f"{where} has {rank} axes beside the examples', where images are [N, H, W, C] and "
            "volumes [N, H, W, D, C]; flatten each example: x.reshape(len(x), -1)."
        )
    if asked != "auto":
        return asked == "first"
    first = shape[0] in COMMON
    last = shape[-1] <= MOST
    if (first and last) or _may_be_first(shape):
        raise DataError(
            f"{where} has shape {_named(shape)}, which does not say where the "
            "channels are; add --config.data.channels=first for [N, C, ...], or "
            "--config.data.channels=last for [N, ..., C]."
        )
    if rank == MAX_RANK and not first and not last:
        raise DataError(
            f"{where} has shape {_named(shape)}, where volumes [N, H, W, D] or "
            f"[N, H, W, D, C] with at most {MOST} channels were wanted; flatten each example: "
            "x.reshape(len(x), -1), or take slices."
        )
    return first


def _may_be_first(shape: tuple[int, ...]) -> bool:
    """Whether a first axis of 2 or 4 may be channels, or the height of a volume."""
    return len(shape) == 3 and shape[0] in (2, MOST) and min(shape[1:]) > MOST


def _named(shape: tuple[int, ...]) -> str:
    return f"[N, {', '.join(map(str, shape))}]"


def _move(array: np.ndarray, moves: bool) -> np.ndarray:
    moved = np.moveaxis(array, 1, -1) if moves else array
    has_one = moved.ndim >= 4 and moved.shape[-1] == 1
    return moved[..., 0] if has_one else moved


def _say_unusual(shape: tuple[int, ...], where: str) -> None:
    """Says what is taken for two channels, and what for a volume."""
    if len(shape) == 3 and shape[-1] == 2:
        say(
            f"{where} has two channels, which are trained as they are; --config.data.alpha=black "
            "takes the second for the opacity of the first."
        )
    if len(shape) == 4 or (len(shape) == 3 and shape[-1] > MOST):
        say(
            f"{where} has examples of shape {shape}: read as volumes, which are trained whole and "
            "shown by their middle slice."
        )
