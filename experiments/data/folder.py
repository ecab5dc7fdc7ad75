"""A folder of PNG and JPEG images: DIR/*.png, DIR/CLASS/*.png, DIR/train/*.png,
DIR/train/CLASS/*.png.

Subfolders called train, validation (valid, val) or test are splits, else everything is the split
`all`; the folder below is the class. Files come in sorted order. Grey when every image is, else
RGB; of one size, or brought to config.data.size.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np

from experiments.data import headers, lazy, photo
from experiments.data.base import DataError, Raw, Source, require, say
from experiments.data.rules import FULL_DEPTH, Rules

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def open_source(directory: str, data_dir: str, limit_mb: float, rules: Rules) -> Source:
    """The images under `directory` (below `data_dir` when that is given and the path is relative),
    read by `rules`; raises DataError.

    Images are uint8 [N, H, W] or [N, H, W, C]: an array, or `OnDisk` when all of them exceed
    `limit_mb` MB.
    """
    require("PIL.Image", "Pillow", "a folder of images")
    if rules.depth == FULL_DEPTH:
        raise DataError(
            "config.data.depth=full is of arrays, and files of images are read in 8 bits: save "
            f"those of {directory} as an array, np.savez('images.npz', x=...), or leave it out."
        )
    root = Path(data_dir) / directory
    if not root.is_dir():
        raise DataError(
            f"config.data.name='images:{directory}' names {root}, which is no folder; give one "
            "with images."
        )
    splits = _splits(root)
    paths = [path for each in splits.values() for path in each]
    common = headers.common(paths, rules, str(root))
    stays = len(paths) * int(np.prod(common.shape)) > limit_mb * 1e6
    decode = partial(photo.decode, mode=common.mode, shape=common.shape, rules=rules)
    classes = sorted(
        {name for split in splits for name in _classes(root, split, splits[split]) or ()}
    )

    def read(split: str) -> Raw:
        images = lazy.of_files(splits[split], decode, common.shape)
        names = _classes(root, split, splits[split])
        labels = (
            None if names is None else np.array([classes.index(name) for name in names], np.int64)
        )
        return Raw(images if stays else images[:], labels, num_levels=256, where=str(root))

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
