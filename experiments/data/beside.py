"""What is beside the values of a row: ids, labels, exposure and covariates."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.data import kinds, lazy
from experiments.data.base import DataError
from experiments.data.columns import COUNTS, NOMINAL, Covariate, Table
from experiments.data.options import TOTAL, Options
from experiments.data.pieces import Parts, Piece, pieces_of
from experiments.data.raw import Coded

MAX_COVARIATE_LEVELS = 100  # of whole numbers that are taken one by one
ID_NAMES = ("", "id", "index", "row", "rowid", "row_id", "unnamed: 0")


class Ids(NamedTuple):
    name: str  # of the column
    by_role: dict[str, np.ndarray]


def ids_of(parts: Parts, names: tuple[str, ...], options: Options, notes: list[str]) -> Ids:
    """The ids of rows: the column that is named, or one that is called so and never repeats."""
    name = options.id_column
    if not name:
        called = [each for each in names if each.strip().lower() in ID_NAMES]
        never = [each for each in called if _never_repeats(parts, each)]
        if not never or len(names) == 1:
            return Ids("", {})
        name = never[0]
    notes.append(f"{name!r} holds the ids of rows")
    found = {}
    for role, (raw, rows) in parts.items():
        column = raw.columns[raw.names.index(name)]
        if isinstance(column, Coded):
            found[role] = np.array([*column.levels, ""])[column.codes[rows]]
        else:
            found[role] = np.asarray(column[rows])
    return Ids(name, found)


def _never_repeats(parts: Parts, name: str) -> bool:
    for raw, _ in parts.values():
        column = raw.columns[raw.names.index(name)]
        values = column.codes if isinstance(column, Coded) else column
        if len(np.unique(values)) < len(values):
            return False
    return True


def labels_of(
    parts: Parts,
    beside: Mapping[str, np.ndarray | None],
    options: Options,
    notes: list[str],
) -> Mapping[str, np.ndarray | None]:
    """Classes of rows, int64 [n]: of the column that is named, or those that the source has."""
    name = options.label_column
    if not name:
        return beside
    pieces = pieces_of(parts, name, options)
    seen = pieces.seen(name)
    if not seen.num_levels or seen.num_levels > kinds.MAX_CODES:
        raise DataError(
            f"config.data.label_column={name!r} holds no classes; whole numbers or texts of at "
            f"most {kinds.MAX_CODES:,} levels are wanted."
        )
    levels = kinds.level_values(seen, NOMINAL)
    found: dict[str, np.ndarray | None] = {}
    for role, piece in pieces.by_role.items():
        if not piece.observed.all():
            raise DataError(
                f"config.data.label_column={name!r} is missing in {np.sum(~piece.observed):,} "
                f"{role} rows; every row needs a label."
            )
        found[role] = np.searchsorted(levels, piece.values).astype(np.int64)
    notes.append(f"{name!r} holds labels, {seen.num_levels} classes, and is not modelled")
    return found


def add_exposure(
    table: Table,
    x: dict[str, dict[str, Any]],
    parts: Parts,
    options: Options,
    notes: list[str],
) -> Table:
    """Adds the exposure of each row, over its mean in the training rows."""
    if not options.exposure:
        return table
    if options.exposure == TOTAL:
        counted = np.array([kind in COUNTS for kind in table.kinds])
        if not counted.any():
            raise DataError("config.data.exposure=total sums counts, and no column is of counts.")
        found = {role: _totals(x[role], counted) for role in parts}
    else:
        pieces = pieces_of(parts, options.exposure, options)
        found = {
            role: np.where(piece.observed, piece.values, 0.0)
            for role, piece in pieces.by_role.items()
        }
    for role, exposure in found.items():
        num = int(np.sum(exposure <= 0))
        if num:
            raise DataError(
                f"config.data.exposure={options.exposure} is not above 0 in {num:,} {role} rows; "
                "leave such rows out, or set no exposure."
            )
    mean = float(np.nanmean(found["train"]))
    for role, exposure in found.items():
        known = np.where(np.isnan(exposure), mean, exposure)
        x[role]["exposure"] = (known / mean).astype(np.float32)
    notes.append(f"exposure is {options.exposure}, {mean:.4g} in the mean")
    return table._replace(exposure=options.exposure, exposure_mean=mean)


def _totals(x: dict[str, Any], counted: np.ndarray) -> np.ndarray:
    """The sums of the counts of rows, float64 [n]; nan where none of them was observed."""
    totals = _sums(x["values"], counted)
    if not totals.all():
        is_there = _sums(x["observed"], counted) > 0
        totals = np.where(is_there, totals, np.nan)
    return totals


def _sums(values: Any, counted: np.ndarray) -> np.ndarray:
    """The sums of some columns of rows, float64 [n]."""
    parts = [rows[:, counted].sum(1, np.float64) for _, rows in lazy.blocks(values)]
    return np.concatenate(parts)


def add_covariates(
    table: Table,
    x: dict[str, dict[str, Any]],
    parts: Parts,
    options: Options,
    notes: list[str],
) -> Table:
    """Adds what a model is given: levels one by one, and reals standardised."""
    if not options.covariates:
        return table
    made = []
    blocks: dict[str, list[np.ndarray]] = {role: [] for role in parts}
    for name in options.covariates:
        pieces = pieces_of(parts, name, options)
        seen = pieces.seen(name)
        covariate = _covariate(name, seen)
        made.append(covariate)
        for role, piece in pieces.by_role.items():
            blocks[role].append(_block(piece, covariate, seen))
    for role in parts:
        x[role]["covariates"] = np.concatenate(blocks[role], axis=1)
    told = [f"{each.name} ({len(each.levels) or 'real'})" for each in made]
    notes.append(f"given to the model and not modelled: {', '.join(told)}")
    return table._replace(covariates=tuple(made))


def _covariate(name: str, seen: kinds.Seen) -> Covariate:
    if not seen.num_observed:
        raise DataError(
            f"config.data.covariates names {name!r}, which no training row has; leave it out."
        )
    is_real = seen.texts is None and (not seen.num_levels or seen.num_levels > MAX_COVARIATE_LEVELS)
    if is_real:
        return Covariate(name, (), seen.mean, seen.sd or 1.0)
    return Covariate(name, kinds.levels_of(seen, NOMINAL))


def _block(piece: Piece, covariate: Covariate, seen: kinds.Seen) -> np.ndarray:
    """A covariate of some rows, float32 [n, size]; zeros where it is missing."""
    if not covariate.levels:
        standard = (piece.values - covariate.loc) / covariate.scale
        return np.where(piece.observed, standard, 0.0).astype(np.float32)[:, None]
    levels = kinds.level_values(seen, NOMINAL)
    codes = np.searchsorted(levels, np.where(piece.observed, piece.values, levels[0]))
    one_hot = np.eye(len(levels), dtype=np.float32)[codes]
    return one_hot * piece.observed[:, None]
