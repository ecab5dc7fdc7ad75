"""What the headers of image files say, and what all images of a folder have in common."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data.base import DataError, say
from experiments.data.photo import DEEP_MODES, brightest, opened, turned
from experiments.data.rules import DROP, KEEP, Rules
from experiments.data.threads import threaded

GREY_MODES = {"1", "L", *DEEP_MODES}
COLOUR_MODES = {"RGB", "P", "CMYK", "YCbCr"}
ALPHA_MODES = {"LA", "RGBA", "PA"}
LARGE = 512  # pixels a side, above which a smaller size is offered
NUM_DEEP = 32  # files of 16 bits that are looked into for their brightest pixel
FULL_DEEP = 2**16 - 1
DIM = 0.5  # of white: no brighter pixel is worth a word


class Header(NamedTuple):
    """Of one file."""

    size: tuple[int, int]  # (H, W), as it is looked at
    mode: str  # Pillow's
    has_alpha: bool


class Common(NamedTuple):
    """What all images become."""

    mode: str  # Pillow's: L, RGB, LA or RGBA
    shape: tuple[int, ...]  # [H, W] or [H, W, C]


def common(paths: Sequence[Path], rules: Rules, where: str) -> Common:
    """What the images at `paths` become by the rules; says what is mixed and what is changed.

    Raises:
      DataError: they are of several sizes and config.data.size is not given, or one is no image.
    """
    headers = threaded(read_header, paths)
    (height, width) = _size(paths, headers, rules, where)
    _say_deep(paths, headers, rules, where)
    mode = ("L" if _is_grey(headers, rules, where) else "RGB") + _alpha_of(headers, rules, where)
    return Common(mode, (height, width) if mode == "L" else (height, width, len(mode)))


def _is_grey(headers: Sequence[Header], rules: Rules, where: str) -> bool:
    """Whether all become grey; says where grey and colour are mixed."""
    if rules.mode != "auto":
        return rules.mode == "grey"
    num_grey = sum(header.mode in GREY_MODES | {"LA"} for header in headers)
    if 0 < num_grey < len(headers):
        say(
            f"{where}: {num_grey} of {len(headers)} images are grey, the others in colour: all are "
            "read as colour; --config.data.mode=grey reads all as grey."
        )
    return num_grey == len(headers)


def _alpha_of(headers: Sequence[Header], rules: Rules, where: str) -> str:
    """The name of a channel of transparency that is kept, or ""; says where it is dropped."""
    num_alpha = sum(header.has_alpha for header in headers)
    if num_alpha and rules.alpha == DROP:
        say(
            f"{where}: the transparency of {num_alpha} of {len(headers)} images is dropped; "
            "--config.data.alpha=white lays them on white, keep trains it as a channel."
        )
    return "A" if num_alpha and rules.alpha == KEEP else ""


def read_header(path: Path) -> Header:
    """The header of an image; raises DataError where it is none that is read."""
    try:
        with opened(path) as image:
            header = Header(_size_of(image), image.mode, _has_alpha(image))
    except Exception as error:  # decoders fail in many ways on a damaged file, all meaning the same
        # Pillow's own sentence of a file that is none names an object of Python
        is_none = type(error).__name__ == "UnidentifiedImageError"
        told = "it begins as neither does" if is_none else error
        raise DataError(
            f"{path} cannot be read as PNG or JPEG ({told}); replace or remove it."
        ) from error
    if header.mode not in GREY_MODES | COLOUR_MODES | ALPHA_MODES:
        raise DataError(
            f"{path} is of Pillow's mode {header.mode!r}, where grey or colour of 8 or 16 bits was "
            "wanted; convert it first."
        )
    return header


def _size_of(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if turned(image) else (height, width)


def _has_alpha(image: Any) -> bool:
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _size(
    paths: Sequence[Path], headers: Sequence[Header], rules: Rules, where: str
) -> tuple[int, int]:
    """(H, W) that all images get."""
    sizes = Counter(header.size for header in headers)
    low = min(sizes)
    high = max(sizes)
    spread = f"{len(sizes)} sizes from {low[0]} x {low[1]} to {high[0]} x {high[1]}"
    if rules.size is not None:
        if set(sizes) != {rules.size}:
            found = spread if len(sizes) > 1 else f"{low[0]} x {low[1]}"
            say(
                f"{where}: images of {found} are brought to {rules.size[0]} x {rules.size[1]} "
                f"(height x width; --config.data.fit={rules.fit})."
            )
        return rules.size
    if len(sizes) > 1:
        first = headers[0].size
        other = next(i for i, header in enumerate(headers) if header.size != first)
        there = headers[other].size
        smallest = f"{min(size[0] for size in sizes)},{min(size[1] for size in sizes)}"
        raise DataError(
            f"{paths[other]} is {there[0]} x {there[1]} (height x width) where {paths[0].name} is "
            f"{first[0]} x {first[1]}, and {len(paths)} images have {spread}; bring them to one by "
            f"--config.data.size={smallest} and --config.data.fit=crop, pad or stretch."
        )
    if max(low) > LARGE:
        say(
            f"{where}: images of {low[0]} x {low[1]} are trained at that size; "
            "--config.data.size=64 makes them smaller."
        )
    return low


def _say_deep(paths: Sequence[Path], headers: Sequence[Header], rules: Rules, where: str) -> None:
    """Says what becomes of 16 bits, and whether the images are dark for them."""
    deep = [path for path, header in zip(paths, headers, strict=True) if header.mode in DEEP_MODES]
    if not deep:
        return
    (black, white) = rules.scale or (0, FULL_DEEP)
    top = max(threaded(brightest, deep[:: max(1, len(deep) // NUM_DEEP)]))
    dark = ""
    if rules.scale is None and top < DIM * white:
        dark = f"; the brightest pixel is {top:,}: --config.data.scale={top} makes that white"
    say(
        f"{where}: {len(deep)} of {len(paths)} images have 16 bits: {black:,.0f} is black, "
        f"{white:,.0f} is white, rounded to 256 levels{dark}."
    )
