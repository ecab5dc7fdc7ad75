"""Sequences of unequal length from what a source has: padded or concatenated arrays, lists of
arrays, or the rows of a table with a column that names their sequence.
"""

import re

import numpy as np

from experiments.data.base import DataError, Raw, did_you_mean, say
from experiments.data.lazy import OnDisk
from experiments.data.options import Options
from experiments.data.pieces import piece_of
from experiments.data.raw import Coded, RawSequences, RawTable, from_array

SHOWN = 5  # ids in a message
MINUTE = 60 * 10**6  # in microseconds
DAY = 24 * 60 * MINUTE
CANONICAL = re.compile(r"0|-?[1-9]\d*")  # a whole number, as it is written again
WHOLE = re.compile(r"[+-]?\d+")
ISO = re.compile(  # ISO 8601, a blank for the T, with the zone of a time
    r"(?P<date>\d{4}-\d\d(-\d\d)?)?([T ]|$|^)"
    r"((?P<time>\d\d:\d\d(:\d\d(\.\d+)?)?) ?"
    r"(Z|UTC|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?)?"
)


def as_sequences(raw: Raw, options: Options) -> RawSequences:
    """The sequences of a split.

    Raises:
      DataError: they are none, or one of them is empty.
    """
    where = raw.where or "the data"
    if isinstance(raw.x, OnDisk) and raw.num_levels:
        raise DataError(
            f"{where} are images on disk, and no sequences; set config.data.kind=images."
        )
    if isinstance(raw.x, RawTable):
        return _by_column(raw.x, options, where)
    if isinstance(raw.x, list):
        return _of_list(raw.x, raw.names, where)
    if isinstance(raw.x, OnDisk):
        say(
            f"{where} takes {raw.x.nbytes / 1e6:,.0f} MB: sequences do not stream, all of it is "
            "read into memory."
        )
    array = np.asarray(raw.x)
    if options.sequence:
        return _by_column(from_array(array, raw.names, where), options, where)
    if array.ndim == 2 and raw.lengths is not None and raw.lengths.sum() == len(array):
        lengths = _checked_lengths(raw.lengths, len(array), where)
        return _in_order(from_array(array, raw.names, where), lengths)
    return _of_padded(array, raw, options, where)


def _of_list(arrays: list[np.ndarray], names: tuple[str, ...], where: str) -> RawSequences:
    """A sequence for each array [T_n, D] or [T_n]."""
    rows = [each[:, None] if each.ndim == 1 else each for each in arrays]
    shapes = {each.shape[1:] for each in rows}
    if len(shapes) > 1 or any(each.ndim != 2 or not each.size for each in rows):
        found = sorted({str(each.shape) for each in arrays})[:SHOWN]
        raise DataError(
            f"{where} is a list of arrays of shapes {', '.join(found)}; sequences are wanted as "
            "[T_n, D], of one D and at least one step each."
        )
    lengths = np.array([len(each) for each in rows])
    return _in_order(from_array(np.concatenate(rows), names, where), lengths)


def _of_padded(array: np.ndarray, raw: Raw, options: Options, where: str) -> RawSequences:
    """An array [N, T, D], or [N, T] of one column, padded with steps of which nothing is known."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise DataError(
            f"{where} has shape {array.shape}; sequences are wanted as [N, T, D], padded, or as "
            "[steps of all, D] with an array `lengths` [N]."
        )
    num, most, size = array.shape
    table = from_array(array.reshape(num * most, size), raw.names, where)
    lengths = raw.lengths
    if lengths is None:
        known = np.zeros(num * most, bool)
        for column in table.columns:
            known |= piece_of(np.asarray(column), options).observed
        steps = np.arange(1, most + 1)
        lengths = np.where(known.reshape(num, most), steps, 0).max(1)
        _require_steps(lengths, None, where)
    lengths = _checked_lengths(lengths, None, where)
    if len(lengths) != num or lengths.max() > most:
        raise DataError(
            f"{where} has shape {array.shape} and {len(lengths)} lengths up to {lengths.max()}; "
            f"one of at most {most} for each sequence is wanted, or as many rows as their sum."
        )
    rows = np.flatnonzero(np.arange(most) < lengths[:, None])
    kept = tuple(np.asarray(column)[rows] for column in table.columns)
    return _in_order(RawTable(table.names, kept), lengths)


def _in_order(table: RawTable, lengths: np.ndarray) -> RawSequences:
    return RawSequences(table, np.arange(len(table)), lengths)


def _checked_lengths(lengths: np.ndarray, total: int | None, where: str) -> np.ndarray:
    """Lengths [N] as int64.

    Raises:
      DataError: they are no whole numbers of 1 or more, or not `total` together.
    """
    flat = np.asarray(lengths)
    is_whole = np.issubdtype(flat.dtype, np.integer)
    if flat.ndim != 1 or not flat.size or not is_whole or flat.min() < 1:
        found = f"of {flat.dtype}, shape {flat.shape}"
        if flat.ndim == 1 and flat.size and is_whole:
            found = f"such as {flat.min()} (the one of sequence {flat.argmin()})"
        raise DataError(
            f"{where} has lengths {found}; whole numbers [N] of at least 1 are wanted, one for "
            "each sequence: leave out what has no step, and save the others by astype(int)."
        )
    if total is not None and flat.sum() != total:
        raise DataError(f"{where} has {total:,} rows and lengths of {flat.sum():,} together.")
    return flat.astype(np.int64)


def _require_steps(lengths: np.ndarray, ids: np.ndarray | None, where: str) -> None:
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        names = empty if ids is None else ids[empty]
        shown = ", ".join(map(str, names[:SHOWN])) + (", ..." if len(empty) > SHOWN else "")
        raise DataError(
            f"{where}: nothing is observed of {len(empty):,} sequences ({shown}); leave them out."
        )


# --- rows of a table


def _by_column(table: RawTable, options: Options, where: str) -> RawSequences:
    """Rows grouped by a column, in the order of another, or as they stand."""
    if not options.sequence:
        raise DataError(
            f"{where} holds rows, and config.data.kind is 'sequences'; name the column that says "
            "which sequence a row is of, by config.data.sequence."
        )
    key = _column(table, options.sequence, "sequence", where)
    ids, codes = _groups(key, options.sequence, where)
    order = np.argsort(codes, kind="stable")
    notes = [f"{options.sequence!r} says which sequence a row is of"]
    if options.time:
        times = _times(table, options, where)
        order = np.lexsort((times, codes))
        same = (np.diff(times[order]) == 0) & (np.diff(codes[order]) == 0)
        if same.any():
            row = order[np.flatnonzero(same)[0]]
            raise DataError(
                f"{where}: {int(same.sum()):,} steps have the {options.time} of another step of "
                f"their sequence, such as row {row}, of {ids[codes[row]]}; give each its own."
            )
        unit = _unit(_column(table, options.time, "time", where))
        notes.append(_said_of_times(times[order], codes[order], options.time, unit))
    lengths = np.bincount(codes, minlength=len(ids))
    return RawSequences(table, order, lengths, ids, tuple(notes))


def _column(table: RawTable, name: str, field: str, where: str) -> np.ndarray | Coded:
    if name not in table.names:
        raise DataError(
            f"config.data.{field} names {name!r}, no column of {where}."
            f"{did_you_mean(name, table.names)}"
        )
    column = table.columns[table.names.index(name)]
    return column if isinstance(column, Coded) else np.asarray(column)


def _groups(key: np.ndarray | Coded, name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Names of the sequences in the order in which they first come, and a number for each row."""
    values = _names(key)[key.codes] if isinstance(key, Coded) else np.asarray(key)
    missing = key.codes < 0 if isinstance(key, Coded) else np.isnan(values.astype(np.float64))
    if missing.any():
        raise DataError(
            f"{where}: {int(missing.sum()):,} rows have no {name}; each needs the sequence that it "
            "is a step of."
        )
    found, first, codes = np.unique(values, return_index=True, return_inverse=True)
    by_place = np.argsort(first)
    rank = np.empty_like(by_place)
    rank[by_place] = np.arange(len(by_place))
    ids = found[by_place]
    if np.issubdtype(ids.dtype, np.floating) and np.all(ids == np.rint(ids)):
        ids = ids.astype(np.int64)
    return ids, rank[codes]


def _names(key: Coded) -> np.ndarray:
    """What codes stand for, the last of them -1: whole numbers where all are written so."""
    if all(len(level) < 19 and CANONICAL.fullmatch(level) for level in key.levels):
        return np.array([*map(int, key.levels), 0], np.int64)
    return np.array([*key.levels, ""])


def _times(table: RawTable, options: Options, where: str) -> np.ndarray:
    column = _column(table, options.time, "time", where)
    if isinstance(column, Coded):
        return _times_of_texts(column, options.time, where)
    if np.issubdtype(column.dtype, np.integer):
        return (column - column.min()).astype(np.float64)  # exact where they are large and close
    times = np.asarray(column, np.float64)
    _require_times(np.isnan(times), options.time, where)
    num = int(np.isinf(times).sum())
    if num:
        raise DataError(
            f"{where}: {num:,} rows have an infinite {options.time}; finite times are wanted, or "
            "leave config.data.time out where the rows are in order."
        )
    return times


def _require_times(missing: np.ndarray, name: str, where: str) -> None:
    if missing.any():
        raise DataError(
            f"{where}: {int(missing.sum()):,} rows have no {name}; each step needs its time, or "
            "leave config.data.time out where the rows are in order."
        )


def _times_of_texts(column: Coded, name: str, where: str) -> np.ndarray:
    """Texts that are numbers, or dates and times as ISO 8601 has them, which are in days.

    Raises:
      DataError: they are others, whose order cannot be known: as texts 10 is before 9, and
        01/02/2026 before 31/01/2026.
    """
    _require_times(column.codes < 0, name, where)
    try:
        moments = np.array([_moment(level) for level in column.levels])
    except ValueError as error:
        raise DataError(
            f"{where}: config.data.time={name!r} holds texts such as {error}, whose order is not "
            "known; numbers, or dates and times such as 2026-11-29 or 2026-11-29 13:30:00, are "
            "wanted."
        ) from None
    return ((moments - moments.min()) / DAY)[column.codes]


def _moment(text: str) -> int:
    """A date, a time of day or both, in microseconds, or a whole number in days.

    Raises:
      ValueError: it is none.
    """
    if WHOLE.fullmatch(text):
        return int(text) * DAY
    found = ISO.fullmatch(text)
    if found is None or not (found["date"] or found["time"]):
        raise ValueError(repr(text))
    try:
        moment = np.datetime64(f"{found['date'] or '1970-01-01'}T{found['time'] or '00:00'}", "us")
    except ValueError:
        raise ValueError(repr(text)) from None
    ahead = 0
    if found["sign"]:
        minutes = 60 * int(found["hours"]) + int(found["minutes"] or 0)
        ahead = minutes * MINUTE if found["sign"] == "+" else -minutes * MINUTE
    return int(moment.astype(np.int64)) - ahead


def _unit(column: np.ndarray | Coded) -> str:
    """That of `_times`."""
    if not isinstance(column, Coded) or all(map(WHOLE.fullmatch, column.levels)):
        return ""
    return " days"


def _said_of_times(times: np.ndarray, codes: np.ndarray, name: str, unit: str) -> str:
    """How the steps lie in time, which a model of steps does not see."""
    gaps = np.diff(times)[np.diff(codes) == 0]
    if not len(gaps) or np.allclose(gaps, gaps[0]):
        return f"{name!r} orders their steps"
    told = f"{gaps.min():.4g} to {gaps.max():.4g}{unit} apart"
    return f"{name!r} orders their steps, which are {told} and are taken as equal"
