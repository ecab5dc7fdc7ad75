"""Images of levels brought to one size, one number of channels and no transparency, by Pillow."""

from typing import Any

import numpy as np

from experiments.data.base import DataError, require, say
from experiments.data.rules import DROP, KEEP, Rules
from experiments.data.threads import threaded

LUMA = np.array([19595, 38470, 7471], np.uint32)  # of 2^16: ITU-R 601-2, as Pillow's mode L
FULL = 255  # the level that is white, and opaque


def brought_to(
    x: np.ndarray, num_levels: int, rules: Rules, where: str, *, aloud: bool = True
) -> tuple[np.ndarray, int]:
    """uint8 images [N, H, W] or [N, H, W, C] by config.data.alpha, .mode and .size; and their
    number of levels, which is 256 where they were resampled. What is done is said where `aloud`.

    Raises:
      DataError: a size is asked for of vectors or volumes, or a change of images of more than 8
        bits.
    """
    if x.dtype != np.uint8:
        _require_unchanged(x, rules, where)
        return x, num_levels
    is_image = x.ndim == 3 or (x.ndim == 4 and x.shape[-1] <= 4)
    if not is_image:
        if rules.size is not None:
            raise DataError(
                f"{where} has examples of shape {x.shape[1:]}, where config.data.size is of images "
                "[H, W] or [H, W, C]; leave it out."
            )
        return x, num_levels
    x = _without_alpha(x, num_levels, rules, where if aloud else "")
    x = _in_mode(x, rules.mode)
    if rules.size is None or x.shape[1:3] == rules.size:
        return x, num_levels
    require("PIL.Image", "Pillow", "config.data.size")
    if num_levels < FULL + 1:
        x = np.rint(x * (FULL / (num_levels - 1))).astype(np.uint8)
    if aloud:
        say(
            f"{where}: {x.shape[1]} x {x.shape[2]} pixels are brought to {rules.size[0]} x "
            f"{rules.size[1]} (height x width; --config.data.fit={rules.fit})."
        )
    return np.stack(threaded(lambda image: _fit_array(image, rules), list(x))), FULL + 1


def _require_unchanged(x: np.ndarray, rules: Rules, where: str) -> None:
    """Raises DataError where images of more than 8 bits would have to be changed: Pillow does not
    do it, and so nothing here.
    """
    channels = x.shape[-1] if x.ndim == 4 else 1
    to_other_size = rules.size is not None and x.shape[1:3] != rules.size
    to_other_mode = (rules.mode == "grey" and channels == 3) or (
        rules.mode == "colour" and channels == 1
    )
    has_alpha = channels in (2, 4) and x.ndim == 4 and rules.alpha != KEEP
    changes = {"size": to_other_size, "mode": to_other_mode, "alpha": has_alpha}
    wanted = [name for name, is_asked in changes.items() if is_asked]
    if wanted:
        raise DataError(
            f"{where} keeps more than 8 bits by config.data.depth=full, and "
            f"config.data.{wanted[0]} would change its images {x.shape[1:]}, which is done in 8 "
            "bits alone: change the array before, or leave one of the two out."
        )


def _without_alpha(x: np.ndarray, num_levels: int, rules: Rules, where: str) -> np.ndarray:
    """Red, green, blue and alpha become three channels; grey and alpha one, where a colour is
    given. Says what is dropped of `where`, if it is named.
    """
    channels = x.shape[-1] if x.ndim == 4 else 1
    if rules.alpha == KEEP or channels not in (2, 4) or (channels == 2 and rules.alpha == DROP):
        return x
    colour = x[..., :-1]
    if rules.alpha == DROP and where:
        say(
            f"{where} has 4 channels: read as red, green, blue and alpha, which is dropped; "
            "--config.data.alpha=white lays them on white, keep trains all four."
        )
    if rules.alpha == DROP:
        return np.ascontiguousarray(colour)
    top = num_levels - 1
    paper = np.array(rules.alpha, np.float32) * (top / FULL)
    if channels == 2:
        paper = paper @ LUMA[:, None] / 2**16
    share = x[..., -1:].astype(np.float32) / top
    laid = np.rint(share * colour + (1 - share) * paper).astype(np.uint8)
    return laid[..., 0] if channels == 2 else laid


def _in_mode(x: np.ndarray, mode: str) -> np.ndarray:
    """Grey [N, H, W] or colour [N, H, W, 3], where that is asked for."""
    if mode == "grey" and x.ndim == 4 and x.shape[-1] == 3:
        return ((x.astype(np.uint32) @ LUMA + 2**15) >> 16).astype(np.uint8)
    if mode == "colour" and x.ndim == 3:
        return np.repeat(x[..., None], 3, axis=-1)
    return x


def _fit_array(image: np.ndarray, rules: Rules) -> np.ndarray:
    """One image [H, W] or [H, W, C] at the size that is asked for; two channels each by itself."""
    from PIL import Image

    if image.ndim == 3 and image.shape[-1] not in (3, 4):
        parts = [_fit_array(image[..., c], rules) for c in range(image.shape[-1])]
        return np.stack(parts, axis=-1)
    return np.asarray(fit(Image.fromarray(np.ascontiguousarray(image)), rules))


def fit(image: Any, rules: Rules) -> Any:
    """A Pillow image at the size that is asked for: `crop` covers it and cuts what is over from the
    middle outwards, `pad` has black beside it, `stretch` changes its proportions.
    """
    from PIL import Image, ImageOps

    if rules.size is None or image.size == rules.size[::-1]:
        return image
    target = rules.size[::-1]  # (W, H), as Pillow has it
    if rules.fit == "crop":
        return ImageOps.fit(image, target, Image.Resampling.BICUBIC)
    if rules.fit == "pad":
        return ImageOps.pad(image, target, Image.Resampling.BICUBIC)
    return image.resize(target, Image.Resampling.BICUBIC)
