"""The rows of a table as a model sees them: made at once, or when they are read from disk."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data import kinds
from experiments.data.columns import Column, Table, column_to_model
from experiments.data.lazy import OnDisk
from experiments.data.options import DROP, Options
from experiments.data.pieces import Parts, Piece, pieces_of
from experiments.data.scan import by_row, read_columns, scan


class Filled(NamedTuple):
    """Columns that are modelled, and the rows of each split."""

    columns: tuple[Column, ...]
    x: dict[str, dict[str, Any]]  # role -> `values` and `observed`, [n, D]
    dropped: dict[str, str]  # column -> why it is left out
    ranges: dict[str, tuple[float, float]]  # column -> lowest and highest value, codes of classes
    missing: dict[str, int]  # column -> values that are not there
    hashes: dict[str, np.ndarray] | None = None  # role -> a number for each row; None: not known


def by_column(parts: Parts, names: Sequence[str], options: Options) -> Filled:
    """The rows of tables with texts, column by column.

    Raises:
      DataError: a column cannot be of its kind.
    """
    columns: list[Column] = []
    dropped: dict[str, str] = {}
    ranges: dict[str, tuple[float, float]] = {}
    missing: dict[str, int] = {}
    values = {
        role: np.zeros((len(rows), len(names)), np.float32) for role, (_, rows) in parts.items()
    }
    observed = {role: np.zeros((len(rows), len(names)), bool) for role, (_, rows) in parts.items()}
    for name in names:
        pieces = pieces_of(parts, name, options)
        seen = pieces.seen(name)
        train = pieces.by_role["train"]
        column = _column(seen, train.values[train.observed], None, options, dropped)
        if column is None:
            continue
        ranges[name] = (seen.low, seen.high)
        missing[name] = 0
        for role, piece in pieces.by_role.items():
            data = _codes(piece, column, seen)
            values[role][:, len(columns)] = column_to_model(column, data, piece.observed)
            observed[role][:, len(columns)] = piece.observed
            missing[name] += int(np.sum(~piece.observed))
        columns.append(column)
    num = len(columns)
    x = {
        role: {"values": _kept(values.pop(role), num), "observed": _kept(observed.pop(role), num)}
        for role in parts
    }
    return Filled(tuple(columns), x, dropped, ranges, missing)


def by_rows(parts: Parts, names: Sequence[str], options: Options) -> Filled:
    """The rows of tables of numbers, looked at once, some at a time; those on disk are read when
    they are asked for.

    Raises:
      DataError: a column cannot be of its kind, or holds an infinite value.
    """
    found = scan(parts, names, options)
    columns: list[Column] = []
    dropped: dict[str, str] = {}
    for name in names:
        (values, counts) = found.levels[name]
        column = _column(found.seen[name], values, counts, options, dropped)
        if column is not None:
            columns.append(column)
    kept = [column.name for column in columns]
    place = {name: d for d, name in enumerate(next(iter(parts.values()))[0].names)}
    reader = _Reader(
        Table(tuple(columns)),
        np.array([place[name] for name in kept], np.int64),
        {
            d: kinds.level_values(found.seen[column.name], column.kind)
            for d, column in enumerate(columns)
            if column.levels
        },
        options,
    )
    x = {}
    for role, (raw, rows) in parts.items():
        stored = by_row(raw).take(rows)
        x[role] = _held(stored, reader) if raw.is_held else _lazy(stored, reader)
    ranges = {name: (found.seen[name].low, found.seen[name].high) for name in kept}
    missing = {name: found.missing[name] for name in kept}
    return Filled(tuple(columns), x, dropped, ranges, missing, found.hashes)


def _lazy(stored: OnDisk, reader: "_Reader") -> dict[str, Any]:
    return {
        "values": stored.changed(reader.values),
        "observed": stored.changed(reader.observed).untold(),
    }


def _held(stored: OnDisk, reader: "_Reader") -> dict[str, Any]:
    """The rows in memory."""
    shape = (len(stored), len(reader.where))
    x = {"values": np.empty(shape, np.float32), "observed": np.empty(shape, bool)}
    for start, data in stored.blocks():
        (x["values"][start : start + len(data)], x["observed"][start : start + len(data)]) = (
            reader.both(data)
        )
    return x


class _Reader(NamedTuple):
    """From stored rows to those of a model."""

    table: Table
    where: np.ndarray  # the stored columns that are modelled, [D]
    levels: Mapping[int, np.ndarray]  # of classes: what the codes stand for
    options: Options

    def both(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values, float32 [n, D], 0 where not observed; and what is observed, bool [n, D]."""
        (found, observed) = read_columns(data, self.where, self.options)
        for d, levels in self.levels.items():
            found[:, d] = np.searchsorted(levels, found[:, d])
        return self.table.to_model(found, observed), observed

    def values(self, data: np.ndarray) -> np.ndarray:
        """The first of them."""
        return self.both(data)[0]

    def observed(self, data: np.ndarray) -> np.ndarray:
        """Bool [n, D]."""
        return read_columns(data, self.where, self.options)[1]


def _kept(array: np.ndarray, num: int) -> np.ndarray:
    """The first columns, in memory of their own where that is less."""
    return array if array.shape[1] == num else np.ascontiguousarray(array[:, :num])


def _column(
    seen: kinds.Seen,
    train: np.ndarray,
    counts: np.ndarray | None,
    options: Options,
    dropped: dict[str, str],
) -> Column | None:
    """The column, or None with the reason in `dropped`; `train` as of `kinds.make_column`."""
    (kind, is_named) = options.kind_of(seen.name)
    why = "config.data.kinds"
    if kind == DROP:
        dropped[seen.name] = "config.data.kinds"
        return None
    if not seen.num_observed:
        dropped[seen.name] = "no training row has it"
        return None
    kinds.require_spread(seen)
    if seen.sd == 0 and not is_named:
        level = seen.texts[int(seen.mean)] if seen.texts else f"{seen.mean:g}"
        dropped[seen.name] = f"constant, {level}"
        return None
    if not kind:
        kind, why = kinds.guess(seen, options.positive)
        if kind == DROP:
            dropped[seen.name] = f"{why}, none of the kinds"
            return None
    return kinds.make_column(seen, kind, why, train, counts)


def _codes(piece: Piece, column: Column, seen: kinds.Seen) -> np.ndarray:
    """The values of a column, those of classes as codes."""
    if not column.levels or seen.texts is not None:
        return piece.values
    levels = kinds.level_values(seen, column.kind)
    known = np.where(piece.observed, piece.values, levels[0])
    return np.searchsorted(levels, known).astype(np.float64)
