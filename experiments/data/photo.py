"""One image file decoded by Pillow: turned as its EXIF says, 16 bits rounded to 8, transparency,
mode and size as config.data asks.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.base import DataError
from experiments.data.resize import fit
from experiments.data.rules import DROP, KEEP, Rules
from vi_jax import files

FORMATS = ("PNG", "JPEG")
DEEP_MODES = {"I;16", "I;16B", "I;16L", "I"}  # 16 bits of grey, as versions of Pillow name them
FULL_DEEP = 2**16 - 1
ORIENTATION = 0x0112  # the EXIF tag
TURNED = (5, 6, 7, 8)  # its values that swap height and width
SPARE = 2  # times the wanted side, at which a JPEG is decoded before it is made smaller


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A Pillow image of a file, its header read; whatever Pillow raises."""
    from PIL import Image

    with (
        files.open_regular(path, follow=True) as file,
        Image.open(file, formats=FORMATS) as image,
    ):
        yield image


def decode(path: Path, *, mode: str, shape: tuple[int, ...], rules: Rules) -> np.ndarray:
    """uint8 [*shape] of one file in Pillow's `mode`.

    Raises:
      DataError: it is damaged, or of another size.
    """
    try:
        with opened(path) as image:
            if rules.size is not None:
                side = SPARE * max(rules.size)
                image.draft(None, (side, side))
            pixels = np.asarray(fit(_in_mode(_upright(image), mode, rules), rules))
    except Exception as error:  # decoders fail in many ways on a damaged file, all meaning the same
        raise DataError(f"{path} is a damaged image ({error}); replace or remove it.") from error
    if pixels.shape != shape:
        raise DataError(
            f"{path} is now of shape {pixels.shape}, where {shape} was wanted: it changed while "
            "being used."
        )
    return pixels


def turned(image: Any) -> bool:
    """Whether the EXIF of a JPEG says that height and width are swapped."""
    return image.format == "JPEG" and image.getexif().get(ORIENTATION) in TURNED


def brightest(path: Path) -> int:
    """The largest number in a file of 16 bits; raises DataError where it is damaged."""
    try:
        with opened(path) as image:
            return int(np.asarray(image).max())
    except Exception as error:  # as in decode
        raise DataError(f"{path} is a damaged image ({error}); replace or remove it.") from error


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if image.format == "JPEG" else image


def _in_mode(image: Any, mode: str, rules: Rules) -> Any:
    """The image in a mode of 8 bits, its transparency as the rules have it."""
    from PIL import Image

    if image.mode in DEEP_MODES:
        (black, white) = rules.scale or (0, FULL_DEEP)
        unit = (np.asarray(image, np.float64) - black) / (white - black)
        image = Image.fromarray(np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8))
    has_alpha = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    if has_alpha and rules.alpha not in (DROP, KEEP):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*rules.alpha, 255)), image)
    return image.convert(mode)
