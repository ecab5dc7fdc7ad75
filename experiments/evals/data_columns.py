"""Rows of a table in the data's own columns and units: numbers, whole counts, names of classes."""

import math
from typing import Any

import numpy as np

from experiments.data.columns import CLASSES, COUNTS, LOG, Column, Covariate, Table

DIGITS = 7  # after the leading one, of what a model computes in float32


def as_columns(table: Table, data: np.ndarray) -> dict[str, np.ndarray]:
    """Values [N, D] in the data's units (`Table.to_data`) by column: reals with the digits that a
    model's numbers have, counts as whole numbers, classes by the names of their levels.
    """
    return {column.name: as_column(column, data[:, d]) for d, column in enumerate(table.columns)}


def as_column(column: Column, data: np.ndarray) -> np.ndarray:
    """The same of one column [N]."""
    if column.kind in CLASSES:
        codes = np.clip(np.rint(data).astype(int), 0, len(column.levels) - 1)
        return np.array(column.levels)[codes]
    if column.kind in COUNTS:
        return np.rint(data).astype(np.int64)
    if column.kind == LOG:
        return data.astype(np.float32).astype(str).astype(np.float64)  # to its digits
    return _rounded(data, column.scale)


def context_columns(table: Table, x: Any) -> dict[str, np.ndarray]:
    """What the rows of x are given, in the data's units: a column of exposure, and covariates."""
    found: dict[str, np.ndarray] = {}
    if table.has_exposure and table.exposure != "total":
        exposure = np.asarray(x["exposure"], np.float64) * table.exposure_mean
        found[table.exposure] = _rounded(exposure, table.exposure_mean)
    first = 0
    for covariate in table.covariates:
        block = np.asarray(x["covariates"])[:, first : first + covariate.size]
        found[covariate.name] = _covariate(covariate, block)
        first += covariate.size
    return found


def _covariate(covariate: Covariate, block: np.ndarray) -> np.ndarray:
    """A covariate [N] of its numbers [N, size]; "" where no level is given."""
    if not covariate.levels:
        number = block[:, 0].astype(np.float64) * covariate.scale + covariate.loc
        return _rounded(number, covariate.scale)
    names = np.array(["", *covariate.levels])
    return names[np.where(block.any(1), block.argmax(1) + 1, 0)]


def _rounded(data: np.ndarray, scale: float) -> np.ndarray:
    """Numbers to so many digits of their scale: what lies beyond is rounding of float32."""
    return np.round(data, DIGITS - math.floor(math.log10(scale)))
