"""Arrays that a function of the user's own returns: `--config.data.name=FILE.py:FUNCTION`.

The function takes no arguments and returns a dictionary of arrays under the names of
`experiments.data.arrays`: x_train, x_test, and y_train, y_test where there are labels; or x alone,
which is the split `all`; or the columns of a table, each [N], by their names. nan is missing, and
so is what NumPy has masked. A list of arrays [T_n, D] of unequal length is a set of sequences.
Memory maps (`np.load(FILE, mmap_mode="r")`) that take more than config.data.device_limit_mb
together stay on disk.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.choices import import_file
from experiments.data import lazy
from experiments.data.arrays import source_of
from experiments.data.base import DataError, Source, did_you_mean


def open_source(name: str, limit_mb: float) -> Source:
    """The source that a function returns; raises DataError."""
    file, _, function = name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"config.data.name={name!r} names {file}, which is no file.")
    try:
        module = import_file(path)
        _require_function(module, function, name)
        arrays = getattr(module, function)()
    except DataError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's own function raises
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
        raise DataError(f"config.data.name={name!r} fails: {said}") from error
    if not isinstance(arrays, Mapping):
        raise DataError(
            f"{name} returned {type(arrays).__name__}; it has to return a dictionary of arrays, "
            "such as {'x_train': ..., 'x_test': ...}."
        )
    strange = [key for key in arrays if not isinstance(key, str)]
    if strange:
        raise DataError(
            f"{name} returned arrays under names such as {strange[0]!r}, a "
            f"{type(strange[0]).__name__}; names are wanted as texts, such as 'x_train'."
        )
    return source_of(list(arrays), partial(_get, arrays, _large(arrays, limit_mb)), name)


def _require_function(module: Any, function: str, name: str) -> None:
    if callable(getattr(module, function, None)):
        return
    known = [key for key, value in vars(module).items() if callable(value)]
    raise DataError(
        f"config.data.name={name!r} names no function of that file, which has "
        f"{', '.join(known) or 'none'}.{did_you_mean(function, known)}"
    )


def _as_array(found: Any) -> np.ndarray | list[np.ndarray]:
    """An array; of arrays of unequal length the list of them."""
    if hasattr(found, "toarray"):  # scipy's sparse matrices
        return np.asarray(found.toarray())
    is_of_arrays = isinstance(found, np.ndarray) and found.dtype == object and found.ndim == 1
    if not (is_of_arrays or isinstance(found, list | tuple)):
        return _unmasked(found)
    try:
        return _of_list(found)
    except ValueError:  # of unequal length within, or not all of them arrays
        return np.array([*found, None], object)[:-1]


def _of_list(found: Any) -> np.ndarray | list[np.ndarray]:
    """The same of a list, or of an array of arrays.

    Raises:
      ValueError: it is of other things.
    """
    rows = [_unmasked(each) for each in found]
    if not all(each.ndim and each.dtype != object for each in rows):
        return np.asarray(found)
    is_uneven = len({each.shape for each in rows}) > 1
    return rows if is_uneven else np.asarray(rows)


def _unmasked(found: Any) -> np.ndarray:
    """An array; what NumPy has masked is nan, which is missing."""
    if not isinstance(found, np.ma.MaskedArray):
        return np.asarray(found)
    if not np.ma.is_masked(found) or found.dtype.kind not in "biuf":
        return np.asarray(found)
    values = found.astype(np.result_type(found.dtype, np.float32))
    return np.ma.filled(values, np.nan)


def _large(arrays: Mapping[str, Any], limit_mb: float) -> set[str]:
    """The memory maps that stay on disk: all of those that hold examples, or none."""
    maps = {
        name: array
        for name, array in arrays.items()
        if isinstance(array, np.memmap) and array.ndim >= 2 and array.flags.c_contiguous
    }
    size = sum(array.nbytes for array in maps.values())
    return set(maps) if size > limit_mb * 1e6 else set()


def _get(arrays: Mapping[str, Any], large: set[str], name: str) -> Any:
    if name in large:
        return lazy.of_maps([arrays[name]])
    return _as_array(arrays[name])
