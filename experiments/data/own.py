"""Arrays that a function of the user's own returns: `--config.data.name=FILE.py:FUNCTION`.

The function takes no arguments and returns a dictionary of arrays under the names that an .npz
would give them (`experiments.data.npz`): x_train, x_test, and y_train, y_test where there are
labels; or x alone, which is the split `all`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.choices import import_file
from experiments.data.base import DataError, Raw, Source
from experiments.data.levels import as_labels, check_rows
from experiments.data.npz import find_keys


def open_source(name: str) -> Source:
    """The source that a function returns; raises DataError."""
    file, _, function = name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"config.data.name={name!r} names {file}, which is no file.")
    try:
        arrays = getattr(import_file(path), function)()
    except Exception as error:  # whatever the user's own function raises
        raise DataError(
            f"config.data.name={name!r} fails: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(arrays, Mapping):
        raise DataError(
            f"{name} returned {type(arrays).__name__}; it has to return a dictionary of arrays, "
            "such as {'x_train': ..., 'x_test': ...}."
        )
    keys = find_keys(set(arrays), name)
    return Source(tuple(keys), partial(_read, name, arrays, keys), name)


def _read(
    name: str, arrays: Mapping[str, Any], keys: dict[str, tuple[str, str | None]], split: str
) -> Raw:
    image_key, label_key = keys[split]
    x = np.asarray(arrays[image_key])
    where = f"{name}: {image_key!r}"
    check_rows(x, where)
    labels = None
    if label_key is not None:
        labels = np.asarray(arrays[label_key])
        labels = as_labels(labels, len(x), f"{name}: {label_key!r}")
    return Raw(x, labels, 0, where)
