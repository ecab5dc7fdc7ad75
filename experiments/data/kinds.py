"""What a column is taken for, and why: from its values, or as config.data.kinds has it.

Guesses are conservative, and are said: 0 and 1 are a yes or no; texts are classes; whole numbers
from 0 are counts where they spread as counts do, ordered levels where they are few and close, and
real numbers where they lie far from 0; all else is real.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.base import DataError
from experiments.data.columns import CLASSES, COUNTS, Column
from experiments.data.texts import said_of_numbers

MAX_CLASSES = 100  # of texts that are taken for classes
MAX_LEVELS = 10  # of whole numbers that are taken for ordered levels
MAX_CODES = 1_000  # of whole numbers that may be named classes
UNDERDISPERSED = 0.5  # variance over mean below this: no counts
STANDARD_ERRORS = 4.0  # of the variance over a Poisson's, from which on it is overdispersed
LEAST_SPREAD = 1e-150  # whose square is a number
FAR = 20.0  # the mean of whole numbers that spread too little for counts: ordered, or real


class Seen(NamedTuple):
    """What is seen of a column: its support in all rows, its moments in the training rows."""

    name: str
    num_observed: int  # training rows
    low: float
    high: float
    is_whole: bool
    distinct: np.ndarray | None  # sorted, where they are whole and at most MAX_CODES
    mean: float
    sd: float
    log_mean: float  # of log x; nan unless all are positive
    log_sd: float
    texts: tuple[str, ...] | None  # of a column of texts, whose values are codes

    @property
    def num_levels(self) -> int:
        """Distinct values, of texts or of whole numbers; 0: not known, since they are many."""
        if self.texts is not None:
            return len(self.texts)
        return 0 if self.distinct is None else len(self.distinct)


def look(
    name: str,
    train: np.ndarray,
    everything: list[np.ndarray],
    texts: tuple[str, ...] | None,
) -> Seen:
    """What is seen of a column, from its observed values, float64.

    Raises:
      DataError: one is infinite.
    """
    parts = [values for values in everything if len(values)]
    low, high = _bounds(parts)
    require_finite(name, low, high)
    is_whole = all(_is_whole(values) for values in parts)
    mean, sd = _moments(train)
    log_mean, log_sd = _moments(np.log(train) if low > 0 else train[:0])
    return Seen(
        name=name,
        num_observed=len(train),
        low=low,
        high=high,
        is_whole=is_whole,
        distinct=_distinct(parts) if is_whole else None,
        mean=mean,
        sd=sd,
        log_mean=log_mean,
        log_sd=log_sd,
        texts=texts,
    )


def require_finite(name: str, low: float, high: float) -> None:
    """Raises DataError where a value of a column is infinite."""
    if np.isinf(low) or np.isinf(high):
        raise DataError(
            f"the column {name!r} holds {low if np.isinf(low) else high}; leave such values empty "
            "(missing), or name them by config.data.sentinel."
        )


def require_spread(seen: Seen) -> None:
    """Raises DataError where the squares of a column's distances are no numbers in float64."""
    is_lost = seen.sd == 0 and 0 < seen.high - seen.low < LEAST_SPREAD
    if seen.texts is None and (not np.isfinite(seen.sd) or is_lost):
        raise DataError(
            f"the column {seen.name!r} lies in {seen.low:.3g}..{seen.high:.3g}, whose standard "
            "deviation float64 cannot hold; save it in other units, or leave it out by "
            f"config.data.kinds='{seen.name}=drop'."
        )


def _bounds(parts: list[np.ndarray]) -> tuple[float, float]:
    """The lowest and the highest value; nan of none."""
    if not parts:
        return np.nan, np.nan
    return min(float(each.min()) for each in parts), max(float(each.max()) for each in parts)


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; nan of none."""
    if not len(values):
        return np.nan, np.nan
    if values.min() == values.max():  # whose mean may be rounded
        return float(values[0]), 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # told by `require_spread`
        return float(values.mean()), float(values.std())


def _is_whole(values: np.ndarray) -> bool:
    """Whether all are whole numbers; most columns of reals show in the first few."""
    head = values[:1000]
    return bool(np.all(head == np.rint(head)) and np.all(values == np.rint(values)))


def _distinct(parts: list[np.ndarray]) -> np.ndarray | None:
    found = np.array([])
    for values in parts:
        found = np.unique(np.concatenate([found, np.unique(values)]))
        if len(found) > MAX_CODES:
            return None
    return found


def guess(seen: Seen, positive: str) -> tuple[str, str]:
    """(kind, why) of a column that varies; ("drop", why) of texts that are no classes.

    Args:
      seen: what is seen of it.
      positive: "log" takes positive reals by their logarithm.
    """
    if seen.texts is not None:
        return _guess_texts(seen)
    if seen.num_levels == 2:
        first, second = _said(seen.distinct)
        return "bernoulli", f"only {first} and {second}"
    if not seen.is_whole:
        return _guess_real(seen, positive)
    return _guess_whole(seen, positive)


def _guess_texts(seen: Seen) -> tuple[str, str]:
    num = seen.num_levels
    assert seen.texts is not None
    if num == 2:
        return "bernoulli", f"{seen.texts[0]} or {seen.texts[1]}"
    why = f"{num:,} different texts{said_of_numbers(seen.texts)}"
    if num <= MAX_CLASSES and num <= seen.num_observed / 2:
        return "categorical", why
    return "drop", why


def _guess_real(seen: Seen, positive: str) -> tuple[str, str]:
    if positive == "log" and seen.low > 0:
        return "log_normal", "positive reals, data.positive=log"
    return "gaussian", "real numbers"


def _guess_whole(seen: Seen, positive: str) -> tuple[str, str]:
    """Of whole numbers: counts have a variance near their mean or above."""
    ratio = seen.sd**2 / seen.mean if seen.mean > 0 else np.nan
    is_count = seen.low >= 0 and ratio >= UNDERDISPERSED
    if is_count:
        # the variance of a sample's variance under a Poisson: 2 mean^2 / (N - 1) + mean / N
        error = np.sqrt(2.0 / max(seen.num_observed - 1, 1) + 1.0 / (seen.mean * seen.num_observed))
        kind = "poisson" if ratio < 1.0 + STANDARD_ERRORS * error else "negative_binomial"
        return kind, f"whole from {seen.low:g}, variance {_near(ratio)} x the mean"
    if seen.num_levels and _is_ordered(seen):
        return "ordinal", f"{seen.high - seen.low + 1:g} levels that lie close"
    why = "whole and negative too" if seen.low < 0 else "whole, far from 0"
    if positive == "log" and seen.low > 0:
        return "log_normal", f"{why}, data.positive=log"
    return "gaussian", why


def _is_ordered(seen: Seen) -> bool:
    return seen.high - seen.low < MAX_LEVELS and abs(seen.mean) < FAR


def _near(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def _said(values: np.ndarray | None) -> list[str]:
    return [] if values is None else [f"{value:.15g}" for value in values]


# --- a column of its kind


def make_column(
    seen: Seen, kind: str, why: str, train: np.ndarray, counts: np.ndarray | None = None
) -> Column:
    """The column of a kind that it can be of.

    Args:
      seen: what is seen of it.
      kind: what it is taken for.
      why: a phrase.
      train: its observed training values, or those that differ; asked for of classes alone.
      counts: how often each of them is there, 1 if not given.

    Raises:
      DataError: its values are not of the kind.
    """
    problem = _problem(seen, kind)
    if problem:
        raise DataError(
            f"the column {seen.name!r} cannot be {kind}: {problem}; give it another kind by "
            f"config.data.kinds='{seen.name}=KIND'."
        )
    sd = seen.sd or 1.0
    if kind in CLASSES:
        codes = np.searchsorted(level_values(seen, kind), train)
        mean = float(np.average(codes, weights=counts))
        return Column(seen.name, kind, why, levels_of(seen, kind), mean=mean)
    if kind in COUNTS:
        return Column(seen.name, kind, why, sd=sd, mean=seen.mean)
    if kind == "log_normal":
        return Column(
            seen.name, kind, why, (), seen.log_mean, seen.log_sd or 1.0, sd=sd, mean=seen.mean
        )
    return Column(seen.name, kind, why, (), seen.mean, sd, sd=sd, mean=seen.mean)


def level_values(seen: Seen, kind: str) -> np.ndarray:
    """The values that the codes 0..L-1 stand for: of ordered whole numbers, those between too."""
    if seen.texts is not None:
        return np.arange(len(seen.texts), dtype=np.float64)
    if kind == "ordinal":
        return np.arange(seen.low, seen.high + 1)
    if kind == "bernoulli" and seen.low >= 0 and seen.high <= 1:
        return np.array([0.0, 1.0])
    assert seen.distinct is not None
    return seen.distinct


def levels_of(seen: Seen, kind: str) -> tuple[str, ...]:
    """The names of the levels."""
    if seen.texts is not None:
        return seen.texts
    return tuple(_said(level_values(seen, kind)))


def _problem(seen: Seen, kind: str) -> str:
    """Why a column cannot be of a kind, "" where it can."""
    if seen.texts is not None:
        return _problem_of_texts(seen, kind)
    if kind in COUNTS and not (seen.is_whole and seen.low >= 0):
        return f"counts are whole numbers from 0, and it holds {_range(seen)}"
    if kind == "log_normal" and not seen.low > 0:
        return f"it holds {seen.low:g}, and a log-normal is of positive numbers"
    if kind in CLASSES:
        return _problem_of_numbers(seen, kind)
    return ""


def _problem_of_texts(seen: Seen, kind: str) -> str:
    if kind not in CLASSES:
        return f"it holds texts, such as {seen.texts[0]!r}" if seen.texts else "it holds texts"
    if kind == "bernoulli" and seen.num_levels != 2:
        return f"it has {seen.num_levels} levels, where two were wanted"
    if seen.num_levels > MAX_CODES:
        return f"it has {seen.num_levels:,} levels, more than {MAX_CODES:,}"
    return ""


def _problem_of_numbers(seen: Seen, kind: str) -> str:
    if seen.distinct is None:
        return f"classes are at most {MAX_CODES:,} whole numbers, and it holds {_range(seen)}"
    is_binary = seen.num_levels == 2 or (seen.low >= 0 and seen.high <= 1)
    if kind == "bernoulli" and not is_binary:
        return f"it has {seen.num_levels} levels, where two were wanted"
    if kind == "ordinal" and seen.high - seen.low >= MAX_CODES:
        return f"its levels {_range(seen)} are more than {MAX_CODES:,}"
    return ""


def _range(seen: Seen) -> str:
    what = "whole numbers" if seen.is_whole else "reals"
    return f"{what} in {seen.low:g}..{seen.high:g}"
