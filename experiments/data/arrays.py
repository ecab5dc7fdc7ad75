"""Arrays under names, of an .npz, an HDF5 group or a function of the user's own, as a source.

They name their splits (`train`, `x_train`, `X_train`, `train_images`, ... and the same for
validation and test), or are one array (`images`, `x`, `X`, `data`, `all`), which is the split
`all`. `columns` names the columns of arrays [N, D]. `lengths` ([N]; `lengths_train`, ...) are the
steps of sequences, whose array is [N, T, D] or, one after the other, [sum of lengths, D]. Where no
name is one of these and all arrays are [N], they are the columns of a table themselves.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from experiments.data.base import DataError, Raw, Source, say
from experiments.data.levels import as_labels, check_rows
from experiments.data.raw import RawColumn, RawTable, as_codes

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
IMAGE_KEYS = ("{}", "x_{}", "X_{}", "images_{}", "{}_images", "{}_x", "{}_X", "{}_data")
LABEL_KEYS = ("y_{}", "Y_{}", "labels_{}", "{}_labels", "{}_label", "{}_y")
LENGTH_KEYS = ("lengths_{}", "{}_lengths")
ALL_IMAGES = ("images", "x", "X", "data", "all")
ALL_LABELS = ("labels", "y", "Y", "label", "targets")
COLUMNS = ("columns", "column_names", "feature_names")
ALL_LENGTHS = ("lengths",)
MASKS = ("mask", "masks", "observed", "missing", "is_observed", "is_missing")  # of no known sense

# a name -> the array under it, in memory or on disk, or a list of arrays of unequal length
Get = Callable[[str], Any]


def source_of(names: Collection[str], get: Get, where: str) -> Source:
    """The source of some arrays.

    Raises:
      DataError: the names do not say what is what.
    """
    present = set(names)
    keys = find_keys(present, where, may_be_columns=True)
    if not keys:
        raw = _columns(names, get, where)
        return Source(("all",), lambda split: raw, where)
    columns = _only(list(COLUMNS), present, where)
    lengths = {split: _lengths_key(split, present, where) for split in keys}
    _say_unread(present, keys, lengths, columns, where)
    return Source(tuple(keys), partial(_read, keys, lengths, columns, get, where), where)


def _say_unread(
    present: set[str],
    keys: dict[str, tuple[str, str | None]],
    lengths: dict[str, str | None],
    columns: str | None,
    where: str,
) -> None:
    """Says which arrays are not read.

    Raises:
      DataError: one of them would change what is read: a mask, or lengths of some splits alone.
    """
    read = {key for pair in keys.values() for key in pair} | {*lengths.values(), columns}
    rest = sorted(present - read)
    _require_no_mask(rest, where)
    of_lengths = [name for name in rest if "length" in name.lower()]
    given = [key for key in lengths.values() if key is not None]
    if of_lengths or 0 < len(given) < len(lengths):
        wanted = map(_lengths_name, lengths)
        raise DataError(
            f"{where} holds {', '.join(of_lengths or given)}, where each of its splits needs "
            f"lengths of its own: {', '.join(wanted)}."
        )
    if rest:
        shown = ", ".join(rest[:8]) + (", ..." if len(rest) > 8 else "")
        say(f"{where} holds {shown} too, which {'is' if len(rest) == 1 else 'are'} not read.")


def _lengths_name(split: str) -> str:
    return LENGTH_KEYS[0].format(split) if split in SPLITS else ALL_LENGTHS[0]


def _require_no_mask(names: list[str], where: str) -> None:
    for name in names:
        if set(re.split(r"[_\W]", name.lower())) & set(MASKS):
            raise DataError(
                f"{where} holds {name!r}, which could mean what is there or what is missing; make "
                "what is missing nan, such as by np.where(IS_THERE, x, np.nan), and leave "
                f"{name!r} out."
            )


def is_known(name: str) -> bool:
    """Whether an array of this name is taken for examples, labels or names of columns."""
    words = [word for spellings in SPLITS.values() for word in spellings]
    split = {form.format(word) for word in words for form in (*IMAGE_KEYS, *LABEL_KEYS)}
    return name in {*split, *ALL_IMAGES, *ALL_LABELS, *COLUMNS}


def find_keys(
    present: set[str], where: str, *, may_be_columns: bool = False
) -> dict[str, tuple[str, str | None]]:
    """Split name -> (key of its images, key of its labels or None), for the splits that there are.

    Args:
      present: the names of arrays.
      where: they are, for messages.
      may_be_columns: names that are none of ours may be those of columns: nothing is found then.

    Raises:
      DataError: two names are of one thing, or none is known.
    """
    found = {}
    for split, spellings in SPLITS.items():
        images = _only(
            [form.format(word) for word in spellings for form in IMAGE_KEYS], present, where
        )
        labels = _only(
            [form.format(word) for word in spellings for form in LABEL_KEYS], present, where
        )
        if images:
            found[split] = (images, labels)
    if found:
        return found
    images = _only(list(ALL_IMAGES), present, where)
    if images is not None:
        return {"all": (images, _only(list(ALL_LABELS), present, where))}
    if may_be_columns and present:
        return {}
    raise DataError(_unknown(present, where))


def _lengths_key(split: str, present: set[str], where: str) -> str | None:
    if split not in SPLITS:
        return _only(list(ALL_LENGTHS), present, where)
    return _only(
        [form.format(word) for word in SPLITS[split] for form in LENGTH_KEYS], present, where
    )


def _unknown(present: Collection[str], where: str) -> str:
    shown = ", ".join(sorted(present)[:8]) or "nothing"
    return f"{where} holds {shown}; wanted are x_train and x_test, or images: rename its arrays."


def _only(candidates: list[str], present: set[str], where: str) -> str | None:
    """The one candidate that is present, if any; two are a DataError, since a choice would be
    silent.
    """
    here = [key for key in candidates if key in present]
    if len(here) > 1:
        raise DataError(
            f"{where} holds both {here[0]!r} and {here[1]!r}, where one of them was wanted; "
            "rename or drop one."
        )
    return here[0] if here else None


def _read(
    keys: dict[str, tuple[str, str | None]],
    length_keys: dict[str, str | None],
    columns: str | None,
    get: Get,
    where: str,
    split: str,
) -> Raw:
    image_key, label_key = keys[split]
    x = get(image_key)
    of_x = f"{where}: {image_key!r}"
    if not isinstance(x, list):
        x = _of_numbers(x, of_x)
        check_rows(x, of_x)
    length_key = length_keys[split]
    lengths = None if length_key is None else np.asarray(get(length_key))
    labels = None
    if label_key is not None:
        num = len(x) if lengths is None else len(lengths)
        labels = as_labels(get(label_key), num, f"{where}: {label_key!r}")
    names = () if columns is None else tuple(map(_text, np.ravel(get(columns))))
    return Raw(x, labels, 0, of_x, names, lengths)


def _of_numbers(x: Any, where: str) -> Any:
    """An array as it is; one of objects that are numbers as numbers.

    Raises:
      DataError: its objects are none.
    """
    is_of_objects = isinstance(x, np.ndarray) and x.dtype.kind == "O"
    if not is_of_objects:
        return x
    try:
        return np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where} holds Python objects of shape {x.shape} ({error}); numbers are wanted, or, "
            "of sequences, a list of arrays [T_n, D]."
        ) from None


def _text(value: Any) -> str:
    """A name as text, "" where there is none; HDF5 gives bytes."""
    if value is None or value != value:  # nan
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _columns(names: Collection[str], get: Get, where: str) -> Raw:
    """Arrays [N] of one length as the columns of a table."""
    arrays = {name: get(name) for name in names}
    lengths = {len(array) for array in arrays.values() if array.ndim == 1}
    if any(array.ndim != 1 for array in arrays.values()) or len(lengths) != 1:
        raise DataError(_unknown(names, where))
    columns = tuple(_column(array, f"{where}: {name!r}") for name, array in arrays.items())
    return Raw(RawTable(tuple(arrays), columns), None, 0, where)


def _column(array: np.ndarray, where: str) -> RawColumn:
    """Numbers as they are, texts as codes."""
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "U":
        return as_codes(array)
    if array.dtype.kind in "SO":  # HDF5 gives texts as bytes, or as objects
        return as_codes(np.array([_text(value) for value in array]))
    raise DataError(f"{where} has dtype {array.dtype}; a column is of numbers or texts.")
