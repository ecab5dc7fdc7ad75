"""From columns as a source has them to the splits of a table: kinds decided, missing values marked,
what varies kept, real columns standardised by the training rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.data import kinds
from experiments.data.base import DataError, Split, did_you_mean
from experiments.data.beside import add_covariates, add_exposure, ids_of, labels_of
from experiments.data.columns import Column, Table, column_to_model
from experiments.data.options import DROP, TOTAL, Options
from experiments.data.pieces import Parts, Piece, pieces_of


class Made(NamedTuple):
    """A table and its splits, with what was left out and why."""

    splits: dict[str, Split]
    table: Table
    dropped: dict[str, str]  # column -> why
    notes: tuple[str, ...]  # on ids, labels, exposure and covariates
    ranges: dict[str, tuple[float, float]]  # column -> lowest and highest value, codes of classes


def make(
    parts: Parts, labels: Mapping[str, np.ndarray | None], options: Options, where: str
) -> Made:
    """The table of a source's splits.

    Args:
      parts: for each role (train, validation, test) the columns of its split and its rows.
      labels: of those rows, where the source has them beside the columns.
      options: how it is read.
      where: the source, for messages.

    Raises:
      DataError: a field names no column, a column cannot be of its kind, or nothing is left.
    """
    names = _common_names(parts, where)
    _require_names(options, names, where)
    notes: list[str] = []
    dropped: dict[str, str] = {}
    # 1. what is no value of a row: ids, labels, exposure, covariates
    ids = ids_of(parts, names, options, notes)
    labels = labels_of(parts, labels, options, notes)
    apart = {options.label_column, options.exposure, *options.covariates, ids.name}
    apart |= {options.sequence, options.time}
    # 2. each column that is left: its kind, or why it is left out
    columns: list[Column] = []
    ranges: dict[str, tuple[float, float]] = {}
    values = {
        role: np.zeros((len(rows), len(names)), np.float32) for role, (_, rows) in parts.items()
    }
    observed = {role: np.zeros((len(rows), len(names)), bool) for role, (_, rows) in parts.items()}
    for name in names:
        if name in apart:
            continue
        pieces = pieces_of(parts, name, options)
        seen = pieces.seen(name)
        column = _column(seen, pieces.by_role["train"], options, dropped)
        if column is None:
            continue
        ranges[name] = (seen.low, seen.high)
        for role, piece in pieces.by_role.items():
            data = _codes(piece, column, seen)
            values[role][:, len(columns)] = column_to_model(column, data, piece.observed)
            observed[role][:, len(columns)] = piece.observed
        columns.append(column)
    if not columns:
        raise DataError(f"{where} has no column that varies and can be modelled: {_said(dropped)}.")
    # 3. the rows with what is beside their values
    num = len(columns)
    x = {
        role: {"values": _kept(values.pop(role), num), "observed": _kept(observed.pop(role), num)}
        for role in parts
    }
    table = Table(tuple(columns))
    table = add_exposure(table, x, parts, options, notes)
    table = add_covariates(table, x, parts, options, notes)
    splits = {role: Split(x[role], labels[role], ids.by_role.get(role)) for role in parts}
    return Made(splits, table, dropped, tuple(notes), ranges)


def _kept(array: np.ndarray, num: int) -> np.ndarray:
    """The first columns, in memory of their own where that is less."""
    return array if array.shape[1] == num else np.ascontiguousarray(array[:, :num])


def _common_names(parts: Parts, where: str) -> tuple[str, ...]:
    names = parts["train"][0].names
    for role, (raw, _) in parts.items():
        if raw.names != names:
            missing = sorted(set(names) ^ set(raw.names))[:3] or ["another order"]
            raise DataError(
                f"{where}: the {role} rows have other columns than the train rows "
                f"({', '.join(missing)}); save both alike."
            )
    return names


def _require_names(options: Options, names: tuple[str, ...], where: str) -> None:
    """Raises DataError for a field that names a column which the data lack."""
    fields = {
        "id_column": (options.id_column,),
        "label_column": (options.label_column,),
        "exposure": () if options.exposure == TOTAL else (options.exposure,),
        "covariates": options.covariates,
        "sequence": (options.sequence,),
        "time": (options.time,),
        "kinds": tuple(name for name, _ in options.kinds if not set(name) & set("*?[")),
    }
    for field, wanted in fields.items():
        for name in wanted:
            if name and name not in names:
                shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise DataError(
                    f"config.data.{field} names {name!r}, no column of {where}, which has {shown}."
                    f"{did_you_mean(name, names)}"
                )


def _column(
    seen: kinds.Seen, train: Piece, options: Options, dropped: dict[str, str]
) -> Column | None:
    """The column, or None with the reason in `dropped`."""
    (kind, is_named) = options.kind_of(seen.name)
    why = "config.data.kinds"
    if kind == DROP:
        dropped[seen.name] = "config.data.kinds"
        return None
    if not seen.num_observed:
        dropped[seen.name] = "no training row has it"
        return None
    if seen.sd == 0 and not is_named:
        level = seen.texts[int(seen.mean)] if seen.texts else f"{seen.mean:g}"
        dropped[seen.name] = f"constant, {level}"
        return None
    if not kind:
        kind, why = kinds.guess(seen, options.positive)
        if kind == DROP:
            dropped[seen.name] = f"{why}, none of the kinds"
            return None
    return kinds.make_column(seen, kind, why, train.values[train.observed])


def _codes(piece: Piece, column: Column, seen: kinds.Seen) -> np.ndarray:
    """The values of a column, those of classes as codes."""
    if not column.levels or seen.texts is not None:
        return piece.values
    levels = kinds.level_values(seen, column.kind)
    known = np.where(piece.observed, piece.values, levels[0])
    return np.searchsorted(levels, known).astype(np.float64)


def _said(dropped: Mapping[str, str]) -> str:
    told = [f"{name!r} ({why})" for name, why in list(dropped.items())[:5]]
    return ", ".join(told) + (", ..." if len(dropped) > 5 else "")
