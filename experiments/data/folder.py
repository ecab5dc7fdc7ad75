"""A folder of PNG and JPEG images of one size: DIR/*.png, DIR/CLASS/*.png, DIR/train/*.png,
DIR/train/CLASS/*.png.

Subfolders called train, validation (valid, val) or test are splits, else everything is the split
`all`; the folder below is the class. Files come in sorted order. Grey when every image is, else
RGB.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import files
from experiments.data.base import DataError, Raw, Source, require, say
from experiments.data.lazy import LazyImages

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
GREY_MODES = {"1", "L"}
COLOUR_MODES = {"RGB", "P", "CMYK", "YCbCr"}
ALPHA_MODES = {"LA", "RGBA", "PA"}


class _Header(NamedTuple):
    size: tuple[int, int]  # (W, H), as Pillow says it
    mode: str


def open_source(directory: str, data_dir: str, limit_mb: float) -> Source:
    """The images under `directory` (below `data_dir` when that is given and the path is relative);
    raises DataError.

    Images are uint8 [N, H, W] or [N, H, W, 3]: an array, or `LazyImages` when all of them exceed
    `limit_mb` MB.
    """
    require("PIL.Image", "Pillow", "a folder of images")
    root = Path(data_dir) / directory
    if not root.is_dir():
        raise DataError(
            f"config.data.name='images:{directory}' names {root}, which is no folder; give one "
            "with images."
        )
    splits = _splits(root)
    files = [path for paths in splits.values() for path in paths]
    height, width, mode = _common(files)
    shape = (height, width) if mode == "L" else (height, width, 3)
    lazy = len(files) * int(np.prod(shape)) > limit_mb * 1e6
    classes = sorted(
        {name for split in splits for name in _classes(root, split, splits[split]) or ()}
    )

    def read(split: str) -> Raw:
        images = LazyImages(splits[split], partial(_decode, mode=mode, shape=shape), shape)
        names = _classes(root, split, splits[split])
        labels = (
            None if names is None else np.array([classes.index(name) for name in names], np.int64)
        )
        return Raw(images if lazy else images[:], labels, num_levels=256)

    return Source(tuple(splits), read, str(root))


def _splits(root: Path) -> dict[str, list[Path]]:
    """Split name -> its sorted files; files that are no images are left out, and counted on
    stderr.
    """
    splits: dict[str, list[Path]] = {}
    skipped = 0
    for path in _walk(root):
        if path.suffix.lower() not in SUFFIXES:
            skipped += 1
            continue
        top = path.relative_to(root).parts[0]
        split = SPLIT_FOLDERS.get(top, "all") if path.parent != root else "all"
        splits.setdefault(split, []).append(path)
    if not splits:
        raise DataError(
            f"{root} holds no PNG or JPEG image; give a folder that does, with or without train/ "
            "and test/."
        )
    if len(splits) > 1 and "all" in splits:
        raise DataError(
            f"{splits['all'][0]} is in no split, where {root} has "
            f"{', '.join(s for s in splits if s != 'all')}; move it."
        )
    if skipped:
        say(f"{root}: {skipped} files that are no PNG or JPEG are left out.")
    return splits


def _walk(root: Path) -> list[Path]:
    """All files below `root`, sorted, hidden ones left out; raises DataError where a folder may not
    be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}); check its rights."
        ) from error

    found = [
        Path(folder) / name for folder, _, names in os.walk(root, onerror=fail) for name in names
    ]
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _classes(root: Path, split: str, paths: list[Path]) -> list[str] | None:
    """The class folder of each file; None when no file is in one."""
    depth = 0 if split == "all" else 1
    parts = [path.relative_to(root).parts[depth:-1] for path in paths]
    if not any(parts):
        return None
    if not all(parts):
        stray = paths[[bool(p) for p in parts].index(False)]
        raise DataError(
            f"{stray} is in no class folder, where others of its split are; move it, or all of "
            "them."
        )
    return [p[0] for p in parts]


def _common(paths: list[Path]) -> tuple[int, int, str]:
    """(H, W, 'L' or 'RGB') of all images, from their headers; raises DataError naming the first
    that differs.
    """
    headers = _threaded(_header, paths)
    for path, header in zip(paths, headers, strict=True):
        if header.size != headers[0].size:
            raise DataError(
                f"{path} is {header.size[0]}x{header.size[1]} where {paths[0].name} is "
                f"{headers[0].size[0]}x{headers[0].size[1]}, and one size for all was wanted; "
                "resize them first."
            )
    modes = {header.mode for header in headers}
    if modes & ALPHA_MODES:
        say(
            f"{paths[0].parent}: the transparency of "
            f"{sum(h.mode in ALPHA_MODES for h in headers)} images is dropped."
        )
    width, height = headers[0].size
    return height, width, "L" if modes <= GREY_MODES else "RGB"


def _header(path: Path) -> _Header:
    from PIL import Image

    try:
        with (
            files.open_regular(path, follow=True) as file,
            Image.open(file, formats=("PNG", "JPEG")) as image,
        ):
            header = _Header(image.size, image.mode)
    except Exception as error:  # decoders fail in many ways on a damaged file, all meaning the same
        raise DataError(
            f"{path} cannot be read as PNG or JPEG ({error}); replace or remove it."
        ) from error
    if header.mode not in GREY_MODES | COLOUR_MODES | ALPHA_MODES:
        raise DataError(
            f"{path} is of Pillow's mode {header.mode!r}, where 8 bits a channel were wanted; "
            "convert it first."
        )
    return header


def _decode(path: Path, *, mode: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 `shape` of one file."""
    from PIL import Image

    try:
        with (
            files.open_regular(path, follow=True) as file,
            Image.open(file, formats=("PNG", "JPEG")) as image,
        ):
            pixels = np.asarray(image.convert(mode))
    except Exception as error:  # as in _header
        raise DataError(f"{path} is a damaged image ({error}); replace or remove it.") from error
    if pixels.shape != shape:
        raise DataError(
            f"{path} is now of shape {pixels.shape}, where {shape} was wanted: it changed while "
            "being used."
        )
    return pixels


def _threaded(function: Callable[[Path], _Header], items: list[Path]) -> list[_Header]:
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items, chunksize=64))
