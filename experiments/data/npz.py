"""Images of the user's own in a plain .npz: `np.savez("mine.npz", x_train=..., y_train=...,
x_test=...)`.

A file names its splits (`train`, `x_train`, `X_train`, `train_images`, ... and the same for
validation and test), or holds one array (`images`, `x`, `X`, `data`, `all`), which is the split
`all`. Nothing pickled is ever loaded.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.data.base import DataError, Raw, Source
from experiments.data.levels import as_labels, check_rows

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
IMAGE_KEYS = ("{}", "x_{}", "X_{}", "images_{}", "{}_images", "{}_x", "{}_X", "{}_data")
LABEL_KEYS = ("y_{}", "Y_{}", "labels_{}", "{}_labels", "{}_label", "{}_y")
ALL_IMAGES = ("images", "x", "X", "data", "all")
ALL_LABELS = ("labels", "y", "Y", "label", "targets")


def open_source(file: str, data_dir: str) -> Source:
    """`file`, under `data_dir` when that is given and the path is relative; raises DataError."""
    path = Path(data_dir) / file
    if not path.is_file():
        raise DataError(
            f"config.data.name='npz:{file}' names {path}, which is no file; give the path of an "
            ".npz."
        )
    with open_npz(path) as opened:
        keys = find_keys(set(opened.files), path)
    return Source(tuple(keys), partial(_read, path, keys), str(path))


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """The opened NpzFile, in a `with`; raises DataError for what is no .npz."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(files.read_npz(path, follow=True))
        except Exception as error:  # of damage in many ways inside numpy and zipfile
            raise DataError(
                f"{path} cannot be read as an .npz ({error}); write it again with np.savez."
            ) from error
        if isinstance(opened, np.ndarray):
            raise DataError(
                f"{path} is one .npy array, where an .npz was wanted; save it with np.savez(FILE, "
                "images=array)."
            )
        yield opened


def read_array(opened: Any, key: str, path: Path) -> np.ndarray:
    """One array of an opened .npz; raises DataError where it is absent, damaged or holds Python
    objects.
    """
    if key not in opened.files:
        raise DataError(
            f"{path} has no {key!r}, it has {', '.join(opened.files)}; get it again or write it "
            "with np.savez."
        )
    try:
        array = opened[key]
    except (
        Exception
    ) as error:  # as in open_npz; object arrays are among them, refused since unpickling runs code
        raise DataError(
            f"{path}: {key!r} is damaged or no plain array ({error}); save plain arrays again."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key!r} is no .npy array; write the file again with np.savez.")
    return array


def find_keys(present: set[str], path: Path | str) -> dict[str, tuple[str, str | None]]:
    """Split name -> (key of its images, key of its labels or None), for the splits that the file
    has.
    """
    found = {}
    for split, spellings in SPLITS.items():
        images = _only(
            [form.format(word) for word in spellings for form in IMAGE_KEYS], present, path
        )
        labels = _only(
            [form.format(word) for word in spellings for form in LABEL_KEYS], present, path
        )
        if images:
            found[split] = (images, labels)
    if found:
        return found
    images = _only(list(ALL_IMAGES), present, path)
    if images is None:
        raise DataError(
            f"{path} holds {', '.join(sorted(present)) or 'nothing'}; wanted are x_train and "
            "x_test, or images: rename its arrays."
        )
    return {"all": (images, _only(list(ALL_LABELS), present, path))}


def _only(candidates: list[str], present: set[str], path: Path | str) -> str | None:
    """The one candidate that is present, if any; two are a DataError, since a choice would be
    silent.
    """
    here = [key for key in candidates if key in present]
    if len(here) > 1:
        raise DataError(
            f"{path} holds both {here[0]!r} and {here[1]!r}, where one of them was wanted; "
            "rename or drop one."
        )
    return here[0] if here else None


def _read(path: Path, keys: dict[str, tuple[str, str | None]], split: str) -> Raw:
    image_key, label_key = keys[split]
    with open_npz(path) as opened:
        x = read_array(opened, image_key, path)
        labels = read_array(opened, label_key, path) if label_key else None
    where = f"{path}: {image_key!r}"
    check_rows(x, where)
    if labels is not None:
        labels = as_labels(labels, len(x), f"{path}: {label_key!r}")
    return Raw(x, labels, 0, where)
