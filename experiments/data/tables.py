"""From columns as a source has them to the splits of a table: kinds decided, missing values marked,
what varies kept, real columns standardised by the training rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from experiments.data.base import DataError, Split, did_you_mean
from experiments.data.beside import add_covariates, add_exposure, ids_of, labels_of
from experiments.data.columns import Table
from experiments.data.filled import by_column, by_rows
from experiments.data.options import TOTAL, Options
from experiments.data.pieces import Parts
from experiments.data.report import row_hashes


class Made(NamedTuple):
    """A table and its splits, with what was left out and why."""

    splits: dict[str, Split]
    table: Table
    dropped: dict[str, str]  # column -> why
    notes: tuple[str, ...]  # on ids, labels, exposure and covariates
    ranges: dict[str, tuple[float, float]]  # column -> lowest and highest value, codes of classes
    missing: dict[str, int]  # column -> values of all rows that are not there
    hashes: dict[str, np.ndarray]  # role -> a number for each row; equal rows have equal ones


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
    # 1. what is no value of a row: ids, labels, exposure, covariates
    ids = ids_of(parts, names, options, notes)
    labels = labels_of(parts, labels, options, notes)
    apart = {options.label_column, options.exposure, *options.covariates, ids.name}
    apart |= {options.sequence, options.time}
    # 2. each column that is left: its kind, or why it is left out
    fill = by_column if parts["train"][0].by_row is None else by_rows
    filled = fill(parts, [name for name in names if name not in apart], options)
    if not filled.columns:
        why = _said(filled.dropped) or "all are named by other fields of config.data"
        raise DataError(f"{where} has no column that varies and can be modelled: {why}.")
    # 3. the rows with what is beside their values
    x = filled.x
    table = Table(filled.columns)
    table = add_exposure(table, x, parts, options, notes)
    table = add_covariates(table, x, parts, options, notes)
    splits = {role: Split(x[role], labels[role], ids.by_role.get(role)) for role in parts}
    hashes = filled.hashes or {role: row_hashes(split.x) for role, split in splits.items()}
    return Made(splits, table, filled.dropped, tuple(notes), filled.ranges, filled.missing, hashes)


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


def _said(dropped: Mapping[str, str]) -> str:
    told = [f"{name!r} ({why})" for name, why in list(dropped.items())[:5]]
    return ", ".join(told) + (", ..." if len(dropped) > 5 else "")
