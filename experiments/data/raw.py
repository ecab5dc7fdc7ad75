"""Tables and sequences as a source gives them, before anything is known of their columns: numbers
by column, or codes of texts.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from experiments.data import lazy
from experiments.data.base import DataError
from experiments.data.lazy import OnDisk


@dataclass(frozen=True)
class Coded:
    """A column of texts: the codes of rows, -1 where there is none, and what they stand for."""

    codes: np.ndarray  # int32 [N]
    levels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)


# numbers are bools, integers, or floats with nan where missing
RawColumn = np.ndarray | OnDisk | Coded


@dataclass(frozen=True)
class RawTable:
    """Columns of one length by name."""

    names: tuple[str, ...]
    columns: tuple[RawColumn, ...]
    by_row: OnDisk | None = None  # [N, D], what the columns are of where all are numbers
    is_held: bool = True  # in memory

    def __len__(self) -> int:
        """Rows."""
        return len(self.columns[0])


@dataclass(frozen=True)
class RawSequences:
    """Sequences whose steps are rows of a table."""

    table: RawTable
    steps: np.ndarray  # rows of it, one sequence after the other in the order of its steps, [M]
    lengths: np.ndarray  # steps of each, at least 1, [N]
    ids: np.ndarray | None = None  # of sequences, [N]
    notes: tuple[str, ...] = ()  # on how they were found

    def __len__(self) -> int:
        """Sequences."""
        return len(self.lengths)

    def steps_of(self, some: np.ndarray) -> np.ndarray:
        """The rows of the table that the steps of some sequences are, one after the other."""
        ends = np.cumsum(self.lengths)
        pieces = [self.steps[ends[i] - self.lengths[i] : ends[i]] for i in some]
        return np.concatenate(pieces)


def from_array(array: np.ndarray | OnDisk, names: tuple[str, ...], where: str) -> RawTable:
    """The columns of an array [N, D] of bools or numbers, in memory or on disk; those of images
    [N, ...] are flattened.

    Raises:
      DataError: it is no such array, or the names are not D different ones.
    """
    _require_numbers(array, where)
    flat = lazy.changed(array, lambda rows: rows.reshape(len(rows), -1))
    size = flat.shape[1]
    if names and len(names) != size:
        raise DataError(f"{where} has {size} columns and {len(names)} names; give one for each.")
    names = names or tuple(f"x{d}" for d in range(size))
    check_names(names, where)
    if not isinstance(flat, OnDisk):
        return of_rows(flat, names)
    flat = flat.remembering()
    columns = tuple(flat.changed(partial(_column, d=d)) for d in range(size))
    return RawTable(names, columns, flat, is_held=False)


def of_rows(array: np.ndarray, names: tuple[str, ...]) -> RawTable:
    """The columns of an array [N, D] of numbers in memory."""
    columns = tuple(array[:, d] for d in range(array.shape[1]))
    return RawTable(names, columns, lazy.of_arrays([array]))


def _require_numbers(array: np.ndarray | OnDisk, where: str) -> None:
    """Raises DataError where an array is not of real numbers, [N, ...]."""
    if array.ndim < 2 or array.size == 0:
        raise DataError(
            f"{where} has shape {array.shape}; a table is wanted as [N, D] with at least one of "
            "each."
        )
    is_number = array.dtype == bool or np.issubdtype(array.dtype, np.number)
    if not is_number or np.issubdtype(array.dtype, np.complexfloating):
        raise DataError(
            f"{where} has dtype {array.dtype}; a table is wanted as real numbers: save its "
            "columns as numbers, or write a csv file."
        )


def _column(rows: np.ndarray, d: int) -> np.ndarray:
    return rows[:, d]


def check_names(names: tuple[str, ...], where: str) -> None:
    """Raises DataError where two columns have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where} has two columns {name!r}; give each a name of its own.")
        seen.add(name)


def as_codes(texts: np.ndarray) -> Coded:
    """Texts [N] as codes of their sorted levels; empty ones are missing."""
    levels, codes = np.unique(texts.astype(str), return_inverse=True)
    codes = codes.astype(np.int32)
    if len(levels) and levels[0] == "":
        return Coded(codes - 1, tuple(map(str, levels[1:])))
    return Coded(codes, tuple(map(str, levels)))
