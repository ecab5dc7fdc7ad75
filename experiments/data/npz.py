"""Images or tables of the user's own in a plain .npz: `np.savez("mine.npz", x_train=...,
y_train=..., x_test=...)`, under the names of `experiments.data.arrays`. Nothing pickled is ever
loaded.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.data.arrays import source_of
from experiments.data.base import DataError, Source, require_file


def open_source(file: str, data_dir: str) -> Source:
    """`file`, under `data_dir` when that is given and the path is relative; raises DataError."""
    path = Path(data_dir) / file
    require_file(path, f"npz:{file}")
    with open_npz(path) as opened:
        names = tuple(opened.files)
    return source_of(names, partial(_get, path), str(path))


def _get(path: Path, name: str) -> np.ndarray:
    with open_npz(path) as opened:
        return read_array(opened, name, path)


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
