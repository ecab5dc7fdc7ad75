"""Where the columns of a table start: at their marginals in the training rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vi_jax.models._columns import CLASSES, Column, require_columns

MIN_SHARE = 0.01  # of zeros that are inflated, at the start
MAX_SHARE = 0.9
DISPERSIONS = (0.05, 100.0)  # of negative binomials, at the start


def with_starts(
    columns: Sequence[Column], values: Any, observed: Any, exposure: Any = None
) -> tuple[Column, ...]:
    """The columns with `start` and `scale` of their marginals in training rows, so that a decoder
    of small weights starts at the independent model.

    Means of real columns (medians of student_t, whose scale is 1.4826 times the median distance
    from it), log mean rates, logits of frequencies (each class counted half a time more),
    cumulative logits of ordinal levels; dispersions and shares of inflated zeros by moments. A
    column of which nothing is observed stays as it is, and so does the scale of log_normal, in
    whose units its values are.

    Args:
      columns: D of them.
      values: [N, D], in the model's units.
      observed: bool, [N, D].
      exposure: [N], above 0; ones if not given.
    """
    columns = require_columns(columns)
    values = np.asarray(values, np.float64)
    observed = np.asarray(observed, bool)
    e = np.ones(len(values)) if exposure is None else np.asarray(exposure, np.float64)
    if values.shape != (len(e), len(columns)) or observed.shape != values.shape:
        raise ValueError(
            f"with_starts expects values and observed [N, {len(columns)}] and exposure [N]; got "
            f"{values.shape}, {observed.shape} and {e.shape}."
        )
    found = []
    for number, column in enumerate(columns):
        rows = observed[:, number]
        if rows.any():
            column = _started(column, values[rows, number], e[rows])
        found.append(column)
    return tuple(found)


def _started(column: Column, x: np.ndarray, e: np.ndarray) -> Column:
    if column.kind == "gaussian":
        return column._replace(start=(float(x.mean()),), scale=_first_positive(x.std(), column))
    if column.kind == "student_t":
        centre = np.median(x)
        spread = 1.4826 * np.median(np.abs(x - centre))
        return column._replace(start=(float(centre),), scale=_first_positive(spread, column))
    if column.kind == "log_normal":
        return column._replace(start=(float(np.log(x).mean() / column.scale),))
    if column.kind == "bernoulli":
        share = (x.sum() + 0.5) / (len(x) + 1.0)
        return column._replace(start=(float(np.log(share / (1.0 - share))),))
    if column.kind in CLASSES:
        return column._replace(start=_of_classes(column, x))
    return _of_counts(column, x, e)


def _first_positive(spread: Any, column: Column) -> float:
    return float(spread) if spread > 0 else column.scale


def _of_classes(column: Column, x: np.ndarray) -> tuple[float, ...]:
    counts = np.bincount(x.astype(int), minlength=column.num_levels) + 0.5
    shares = counts / counts.sum()
    if column.kind == "categorical":
        return tuple(float(value) for value in np.log(shares))
    below = np.cumsum(shares)[:-1]
    return tuple(float(value) for value in np.log(below) - np.log1p(-below))


def _of_counts(column: Column, x: np.ndarray, e: np.ndarray) -> Column:
    rate = (x.sum() + 0.5) / e.sum()
    excess = np.sum((x - rate * e) ** 2 - rate * e)  # over a Poisson's variance
    if column.kind == "poisson":
        return column._replace(start=(float(np.log(rate)),))
    if column.kind == "zero_inflated_poisson":
        # E[x^2 - x] = (1 - pi) rate^2 e^2 and E[x] = (1 - pi) rate e
        base = max((excess + np.sum((rate * e) ** 2)) / (rate * np.sum(e**2)), rate)
        share = np.clip(1.0 - rate / base, MIN_SHARE, MAX_SHARE)
        return column._replace(start=_inflated(rate, share))
    dispersion = float(np.clip(_ratio(rate**2 * np.sum(e**2), excess), *DISPERSIONS))
    if column.kind == "negative_binomial":
        return column._replace(start=(float(np.log(rate)),), scale=dispersion)
    of_base = np.mean((1.0 + rate * e / dispersion) ** -dispersion)  # zeros of the base
    share = np.clip((np.mean(x == 0) - of_base) / (1.0 - of_base), MIN_SHARE, MAX_SHARE)
    return column._replace(start=_inflated(rate, share), scale=dispersion)


def _ratio(a: Any, b: Any) -> Any:
    return a / b if b > 0 else np.inf


def _inflated(rate: Any, share: Any) -> tuple[float, float]:
    """Log rate of the base and logit of pi, of one mean rate."""
    return float(np.log(rate / (1.0 - share))), float(np.log(share / (1.0 - share)))
