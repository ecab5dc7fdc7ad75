"""Whether a source's arrays are images, a table or sequences: by config.data.kind, or by what they
are.
"""

from collections.abc import Mapping

import numpy as np

from experiments.data import lazy
from experiments.data.base import DataError, Raw
from experiments.data.lazy import OnDisk
from experiments.data.options import Options
from experiments.data.raw import RawTable, from_array
from experiments.data.rules import Rules


def are_sequences(stored: Mapping[str, Raw], options: Options) -> bool:
    """Whether the splits of a source are those of sequences: where a column or lengths say which
    rows belong together, or arrays are of unequal length, or config.data.kind says so.

    Raises:
      DataError: config.data.kind asks for what they cannot be.
    """
    first = next(iter(stored.values()))
    have_lengths = isinstance(first.x, list) or first.lengths is not None
    if have_lengths and options.kind in ("images", "table"):
        raise DataError(
            f"{first.where or 'the data'} have lengths of their own and are sequences; set "
            "config.data.kind=sequences, or leave the lengths out."
        )
    return options.kind == "sequences" or have_lengths or bool(options.sequence)


def are_tables(stored: Mapping[str, Raw], options: Options, rules: Rules) -> bool:
    """Whether the splits of a source are those of a table.

    An array [N, D] is one unless it is 8-bit or bools, or floats that all lie in [0, 1]: those are
    rows of pixels, and so are those that a rule of images is given for. Arrays of more axes are
    images, and files of columns tables.

    Raises:
      DataError: config.data.kind asks for what they cannot be.
    """
    first = next(iter(stored.values()))
    if options.kind == "images" and isinstance(first.x, RawTable):
        raise DataError(
            f"{first.where} has named columns and is no set of images; set config.data.kind=table."
        )
    if options.kind == "table" and _is_of_files(first):
        raise DataError(
            f"{first.where or 'the data'} are images on disk, and no table; set "
            "config.data.kind=images."
        )
    if options.kind != "auto":
        return options.kind == "table"
    if isinstance(first.x, RawTable):
        return True
    is_open = first.num_levels == 0 and getattr(first.x, "ndim", 0) == 2 and rules == Rules()
    return is_open and not all(is_of_pixels(raw.x) for raw in stored.values())


def _is_of_files(raw: Raw) -> bool:
    """Whether images are decoded when they are asked for."""
    return isinstance(raw.x, OnDisk) and bool(raw.num_levels)


def is_of_pixels(array: np.ndarray | OnDisk) -> bool:
    """Whether an array is of bools, 8-bit integers, or floats that all lie in [0, 1]."""
    if array.dtype in (np.uint8, np.bool_):
        return True
    if not np.issubdtype(array.dtype, np.floating) or not array.size:
        return False
    # a nan is neither
    return all(part.min() >= 0 and part.max() <= 1 for _, part in lazy.blocks(array))


def as_table(raw: Raw) -> RawTable:
    """The columns of a split."""
    if isinstance(raw.x, RawTable):
        return raw.x
    array = raw.x if isinstance(raw.x, OnDisk) else np.asarray(raw.x)
    return from_array(array, raw.names, raw.where or "the data")
