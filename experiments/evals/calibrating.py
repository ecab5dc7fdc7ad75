"""Intervals of imputed entries, calibrated by observed entries of validation rows that are hidden
from the model (`vi_jax.diagnostics.conformal`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data.columns import LOG, ORDERED, REAL, Column, Table
from experiments.evals import hiding
from experiments.evals.decoding import rows_of
from experiments.evals.hiding import Hidden
from experiments.run import heartbeat, session
from vi_jax.diagnostics import conformal

COVERAGE = 0.9  # of intervals
MIN_OF_COLUMN = 100  # hidden entries from which on a column has a factor of its own
# of the share that the model's own intervals hold, above which nothing is corrected by it unless it
# is off by so many of them
MAX_STDERR = 0.02
MAX_OFF = 3.0
MIN_OF_KIND = 50  # hidden entries from which on columns of a kind have one, or all of them


class Group(NamedTuple):
    """Columns whose intervals are widened by one factor."""

    columns: tuple[str, ...]
    widening: conformal.Widening


class Calibration(NamedTuple):
    """What was found from hidden entries."""

    factor: np.ndarray  # of each column, [D]; 1 where nothing is known
    groups: tuple[Group, ...]  # none: nothing is calibrated
    how: str  # entries were hidden, or why nothing is calibrated
    num_hidden: int = 0
    num_examples: int = 0  # that they are of
    own_coverage: float | None = None  # share of them within the model's own intervals
    own_stderr: float | None = None  # of that share, entries of an example counting together

    def to_json(self) -> dict[str, Any]:
        """What intervals.json holds."""
        groups = [
            {"columns": list(group.columns), **group.widening._asdict()} for group in self.groups
        ]
        numbers = {
            name: getattr(self, name)
            for name in ("how", "num_hidden", "num_examples", "own_coverage", "own_stderr")
        }
        is_calibrated = bool(self.groups)
        return {"coverage": COVERAGE, "is_calibrated": is_calibrated, **numbers, "groups": groups}

    def in_words(self) -> str:
        """A line for those who asked for intervals."""
        if not self.groups:
            return f"90 % intervals are the model's own, not calibrated: {self.how}"
        factors = [group.widening.factor for group in self.groups]
        return (
            f"90 % intervals are calibrated by {self.num_hidden:,} hidden entries of "
            f"{self.num_examples:,} validation examples, {self.how}: the model's own held "
            f"{in_per_cent(self.own_coverage, self.own_stderr)} of them, and are scaled by "
            f"{min(factors):.2f} to {max(factors):.2f} (intervals.json)"
        )


def in_per_cent(share: float | None, stderr: float | None) -> str:
    """A share with its standard error."""
    return f"{100 * (share or 0.0):.1f} ± {100 * (stderr or 0.0):.1f} %"


def nothing(table: Table, why: str, num_hidden: int = 0) -> Calibration:
    """Intervals as the model has them, and why."""
    return Calibration(np.ones(len(table.columns)), (), why, num_hidden)


def of_run(
    config: Any,
    dataset: Any,
    names: tuple[str, ...],
    impute_entries: Callable[..., Any],
    key: jax.Array,
    params: Any,
    *,
    num_hidden: int,
) -> Calibration:
    """The calibration of a run's imputation.

    Args:
      config, dataset, params: of the run.
      names: the splits that are imputed.
      impute_entries: of `imputing.make_impute`.
      key: one typed PRNG key.
      num_hidden: entries that are hidden, at most; 0: none, and nothing is calibrated.
    """
    table = dataset.table
    holes = hiding.holes_of(dataset, names)
    if not num_hidden or not len(holes):
        why = "nothing is missing." if num_hidden else "--num_hidden=0 asks for none."
        return nothing(table, why)
    part = dataset.validation
    if part is None:
        why = "the run has no validation rows; config.data.validation names some."
        return nothing(table, why)
    x, _ = session.evaluation_set(config, dataset, "validation")
    observed = np.asarray(x["observed"])
    is_there = hiding.is_there_of(observed, part.lengths)
    key_hidden, key_imputed = jax.random.split(key)
    seed = np.asarray(jax.random.key_data(key_hidden)).ravel()
    hidden = hiding.hide(seed, observed, is_there, holes, table, num_hidden)
    with heartbeat.compiling("imputing hidden entries of validation rows"):
        return calibrate(impute_entries, key_imputed, params, x, part.lengths, hidden, table)


def calibrate(
    impute_entries: Callable[..., Any],
    key: jax.Array,
    params: Any,
    x: Any,
    lengths: np.ndarray | None,
    hidden: Hidden,
    table: Table,
) -> Calibration:
    """The factors by which intervals of the entries that were hidden would have held COVERAGE.

    Args:
      impute_entries: of `imputing.make_impute`.
      key, params: for it.
      x: the validation rows as a model takes them, leaves [N, ...].
      lengths: of sequences, [N].
      hidden: of `hide`.
      table: the columns.
    """
    has_intervals = hiding.intervals_of(table)
    num = int((hidden.is_hidden & has_intervals).sum())
    if num < MIN_OF_KIND:
        why = (
            f"{num} entries of validation rows can be hidden to see what they cover, and "
            f"{MIN_OF_KIND} are wanted; give more rows to config.data.validation."
        )
        return nothing(table, why, num)
    # 1. the hidden entries as the model fills them in
    given = hiding.without(rows_of(x, hidden.example), hidden.is_hidden, table)
    of_given = None if lengths is None else lengths[hidden.example]
    found = impute_entries(key, params, given, of_given)
    # 2. what they are
    truth = table.to_data(np.asarray(x["values"])[hidden.example])
    is_hidden = hidden.is_hidden
    example = hidden.example
    if of_given is not None:
        is_there = np.arange(truth.shape[1]) < of_given[:, None]
        truth = truth[is_there]
        is_hidden = is_hidden[is_there]
        example = np.repeat(example, of_given)
    mine = is_hidden[found.row, found.column] & has_intervals[found.column]
    entries = jax.tree.map(lambda leaf: leaf[mine], found)
    # 3. a factor for each group of columns
    own = truth[entries.row, entries.column]
    return _calibration(own, entries, example[entries.row], hidden.how, table)


def _calibration(
    truth: np.ndarray, entries: Any, example: np.ndarray, how: str, table: Table
) -> Calibration:
    """From hidden entries [M], what they are and which example each is of."""
    inside = (truth >= entries.low) & (truth <= entries.high)
    stderr = conformal.clustered_stderr(inside, example)
    num_examples = len(np.unique(example))
    share = float(inside.mean())
    numbers = (len(truth), num_examples, share, stderr)
    if stderr > max(MAX_STDERR, abs(share - COVERAGE) / MAX_OFF):
        why = (
            f"they held {in_per_cent(share, stderr)} of {len(truth):,} hidden entries of "
            f"{num_examples:,} validation examples, which is too uncertain to correct them by "
            f"({100 * MAX_STDERR:.0f} % is wanted); give more rows to config.data.validation."
        )
        return Calibration(np.ones(len(table.columns)), (), why, *numbers)
    groups = grouped(truth, entries, table)
    factor = np.ones(len(table.columns))
    number = {name: d for d, name in enumerate(table.names)}
    for group in groups:
        factor[[number[name] for name in group.columns]] = group.widening.factor
    return Calibration(factor, groups, how, *numbers)


def grouped(truth: np.ndarray, entries: Any, table: Table) -> tuple[Group, ...]:
    """Each column that has enough hidden entries, the others by kind, or all together.

    Args:
      truth: of the hidden entries, in the data's units, [M].
      entries: as they were imputed, `imputing.Entries` of them.
      table: the columns.
    """
    num = np.bincount(entries.column, minlength=len(table.columns))
    of_kind: dict[str, list[int]] = {}
    sets = []
    for d, column in enumerate(table.columns):
        if num[d] >= MIN_OF_COLUMN:
            sets.append([d])
        elif column.kind in hiding.HAVE_INTERVALS:
            of_kind.setdefault(column.kind, []).append(d)
    too_few = []
    for columns in of_kind.values():
        if num[columns].sum() >= MIN_OF_KIND:
            sets.append(columns)
        else:
            too_few += columns
    made = []
    for columns in sets:
        which = np.isin(entries.column, columns)
        made.append(_group(columns, which, truth, entries, table))
    if too_few:
        everything = np.ones(len(truth), bool)
        made.append(_group(too_few, everything, truth, entries, table))
    return tuple(group for group in made if np.isfinite(group.widening.factor))


def _group(
    columns: Sequence[int], which: np.ndarray, truth: np.ndarray, entries: Any, table: Table
) -> Group:
    some = jax.tree.map(lambda leaf: leaf[which], entries)
    x = _scaled(truth[which], some.column, table)
    (low, median, high) = _ends(some, table)
    padding = _padding(table)[some.column]
    found = conformal.calibrate(x, low, median, high, coverage=COVERAGE, padding=padding)
    return Group(tuple(table.names[d] for d in columns), found)


def widen(entries: Any, calibration: Calibration, table: Table) -> Any:
    """Entries with their intervals widened by the factor of their columns."""
    if not calibration.groups or not len(entries.row):
        return entries
    factor = calibration.factor[entries.column]
    padding = _padding(table)[entries.column]
    (low, high) = conformal.widened(*_ends(entries, table), factor, padding=padding)
    low = low.copy()
    high = high.copy()
    for d, column in enumerate(table.columns):
        mine = entries.column == d
        (low[mine], high[mine]) = _as_data(column, low[mine], high[mine])
    has_interval = hiding.intervals_of(table)[entries.column]
    return entries._replace(
        low=np.where(has_interval, low, entries.low),
        high=np.where(has_interval, high, entries.high),
    )


def _as_data(column: Column, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a column: the values between them that it may have."""
    if column.kind == LOG:
        return np.exp(low), np.exp(high)
    if column.kind in REAL:
        return low, high
    last = len(column.levels) - 1 if column.kind in ORDERED else np.inf
    return np.clip(np.ceil(low), 0, last), np.clip(np.floor(high), 0, last)


def _ends(entries: Any, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low, median and high of entries, on the scales on which they are widened."""
    column = entries.column
    return (
        _scaled(entries.low, column, table),
        _scaled(entries.median, column, table),
        _scaled(entries.high, column, table),
    )


def _scaled(data: np.ndarray, column: np.ndarray, table: Table) -> np.ndarray:
    """Entries in the data's units, those of log-normal columns as logarithms, [M]."""
    is_log = np.array([kind == LOG for kind in table.kinds])[column]
    return np.where(is_log, np.log(np.where(is_log, data, 1.0)), data)


def _padding(table: Table) -> np.ndarray:
    """1/2 of columns of whole numbers, [D]."""
    return np.array([0.0 if kind in REAL else 0.5 for kind in table.kinds])
