"""The fields of config.data that say how images are read: size, fit, mode, alpha, scale, depth and
channels.
"""

import re
from typing import Any, NamedTuple

from experiments.data.base import DataError, did_you_mean

FITS = ("crop", "pad", "stretch")
MODES = ("auto", "grey", "colour")
FULL_DEPTH = "full"
CHANNELS = ("auto", "first", "last")
DEPTHS = ("8bit", FULL_DEPTH)
DROP = "drop"  # of alpha: leave it out
KEEP = "keep"  # of alpha: a channel as the others
COLOURS = {"black": (0, 0, 0), "grey": (128, 128, 128), "white": (255, 255, 255)}
SCALES = {"unit": (0.0, 1.0), "symmetric": (-1.0, 1.0)}
MAX_SIDE = 16_384  # pixels


class Rules(NamedTuple):
    """How images are read."""

    size: tuple[int, int] | None = None  # (H, W) that all are brought to; None: as they are
    fit: str = "crop"  # how, one of FITS
    mode: str = "auto"  # one of MODES; auto: grey where all of them are
    alpha: str | tuple[int, int, int] = DROP  # DROP, KEEP, or the colour that it is laid on
    scale: tuple[float, float] | None = None  # the numbers that are black and white; None: auto
    channels: str = "auto"  # the axis of an array that has them, one of CHANNELS
    depth: str = "8bit"  # of arrays that have more bits, one of DEPTHS; full: all of them


def read_rules(config_data: Any) -> Rules:
    """The rules in `config.data`; what is absent has its default.

    Raises:
      DataError: a field cannot be meant.
    """
    return Rules(
        size=_size(getattr(config_data, "size", ())),
        fit=_one_of(config_data, "fit", FITS),
        mode=_one_of(config_data, "mode", MODES),
        alpha=_alpha(getattr(config_data, "alpha", DROP)),
        scale=_scale(getattr(config_data, "scale", "auto")),
        channels=_one_of(config_data, "channels", CHANNELS),
        depth=_one_of(config_data, "depth", DEPTHS),
    )


def _size(value: Any) -> tuple[int, int] | None:
    """(H, W) of 64, (64,), (64, 48), or None for ()."""
    sides = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not sides:
        return None
    is_whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) > 2 or not is_whole or not all(0 < side <= MAX_SIDE for side in sides):
        raise DataError(
            f"config.data.size={value!r} is no size of images; give a side such as 64, or a height "
            f"and a width such as 64,48, whole numbers from 1 to {MAX_SIDE:,}."
        )
    return sides[0], sides[-1]


def _alpha(value: Any) -> str | tuple[int, int, int]:
    """DROP, KEEP, or red, green and blue of a colour."""
    if value in (DROP, KEEP):
        return value
    if isinstance(value, str) and value in COLOURS:
        return COLOURS[value]
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    words = (DROP, KEEP, *COLOURS)
    raise DataError(
        f"config.data.alpha={value!r} is none of {', '.join(words)} or a colour such as #ff8000: "
        f"what is done to transparency.{did_you_mean(str(value), words)}"
    )


def _scale(value: Any) -> tuple[float, float] | None:
    """The numbers that are black and white: of 'unit', 'symmetric', WHITE or BLACK:WHITE; None for
    'auto'.
    """
    if value == "auto":
        return None
    if isinstance(value, str) and value in SCALES:
        return SCALES[value]
    black, _, white = str(value).rpartition(":")
    try:
        ends = (float(black or 0), float(white))
    except ValueError:
        ends = (0.0, 0.0)
    if not 0 < ends[1] - ends[0] < float("inf"):
        words = ("auto", *SCALES)
        raise DataError(
            f"config.data.scale={value!r} is none of {', '.join(words)}, the number that is white, "
            "such as 255, or BLACK:WHITE, such as -1000:3000, the lower one first."
            f"{did_you_mean(str(value), words)}"
        )
    return ends


def _one_of(config_data: Any, name: str, values: tuple[str, ...]) -> str:
    value = getattr(config_data, name, values[0])
    if value not in values:
        hint = did_you_mean(str(value), values)
        raise DataError(f"config.data.{name}={value!r} is none of {', '.join(values)}.{hint}")
    return value
