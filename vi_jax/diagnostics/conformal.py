"""Split conformal calibration: intervals widened until they cover as they say, by values that were
hidden from the model.

The factor is that of rows that were not fitted; nothing is assumed of the model. Numpy only.
"""

import math
from typing import NamedTuple

import numpy as np


class Widening(NamedTuple):
    """By how much intervals are widened, and what that was found from."""

    factor: float  # of the distance of either end from the median; below 1 they are narrowed
    own_coverage: float  # share of the hidden values within the intervals as they were
    num_hidden: int  # n


def rank(num: int, coverage: float) -> int:
    """ceil((n + 1) c): how many of n exchangeable scores, in order, one more is below with a
    probability of at least c (Vovk et al. 2005; Romano et al. 2019, eq. 8).

    Raises:
      ValueError: c is no share, or n is too small to have that many.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"rank expects a coverage between 0 and 1; got {coverage}.")
    found = math.ceil((num + 1) * coverage - 1e-9)  # 0.9 * 10 is not 9 in binary
    if found > num:
        least = math.ceil(coverage / (1.0 - coverage) - 1e-9)
        raise ValueError(
            f"a coverage of {coverage} needs at least {least} scores; got {num}. Hide more values, "
            "or ask for a lower one."
        )
    return found


def scores(
    x: np.ndarray,
    lower: np.ndarray,
    median: np.ndarray,
    upper: np.ndarray,
    *,
    padding: np.ndarray | float = 0.0,
) -> np.ndarray:
    """The factor at which the interval of each value, widened about its median, first holds it:

        max((x - m) / (u - m), (m - x) / (m - l)).

    The scaled form of the score of conformalised quantile regression (Romano et al. 2019, eq. 6,
    which adds instead): it has no units, so that columns may be pooled.

    Args:
      x: values that were hidden, [N].
      lower, median, upper: of the interval of each, [N].
      padding: added to both distances; 1/2 for whole numbers, whose intervals may have no width.

    Returns:
      [N]; infinite outside an interval of no width.
    """
    x = np.asarray(x, np.float64)
    above = _ratio(x - median, upper - median + padding)
    below = _ratio(median - x, median - lower + padding)
    return np.maximum(above, below)


def calibrate(
    x: np.ndarray,
    lower: np.ndarray,
    median: np.ndarray,
    upper: np.ndarray,
    *,
    coverage: float,
    padding: np.ndarray | float = 0.0,
) -> Widening:
    """The factor by which intervals of a group are widened: the ceil((n + 1) c)-th smallest score.

    An interval of one more value, exchangeable with the n hidden ones, then covers it with a
    probability between c and c + 1 / (n + 1), whatever the model (Romano et al. 2019, theorem 1);
    several entries of one row depend on each other, which leaves that about right.

    Args:
      x, lower, median, upper, padding: as for `scores`.
      coverage: c, between 0 and 1.

    Raises:
      ValueError: there are too few values, see `rank`.
    """
    found = np.sort(scores(x, lower, median, upper, padding=padding))
    factor = float(found[rank(len(found), coverage) - 1])
    inside = (np.asarray(x) >= lower) & (np.asarray(x) <= upper)
    return Widening(factor, float(inside.mean()), len(found))


def clustered_stderr(values: np.ndarray, group: np.ndarray) -> float:
    """The standard error of the mean of values that depend on each other within groups, such as
    entries of one row: the sandwich sqrt(G / (G - 1) sum_g (sum_{i in g} x_i - mean)^2) / N of
    Liang & Zeger (1986).

    Args:
      values: [N].
      group: the number of the group of each, [N].

    Returns:
      Infinite where there is one group.
    """
    (names, number) = np.unique(group, return_inverse=True)
    if len(names) < 2:
        return math.inf
    sums = np.bincount(number, np.asarray(values, np.float64) - np.mean(values))
    return math.sqrt(np.sum(sums**2) * len(names) / (len(names) - 1)) / len(values)


def widened(
    lower: np.ndarray,
    median: np.ndarray,
    upper: np.ndarray,
    factor: np.ndarray | float,
    *,
    padding: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The ends m - f (m - l) and m + f (u - m) of the values whose score is at most f, [N] each.

    Args:
      lower, median, upper, padding: as for `scores`.
      factor: f, finite.
    """
    low = median - factor * (median - lower + padding)
    high = median + factor * (upper - median + padding)
    return low, high


def _ratio(distance: np.ndarray, width: np.ndarray) -> np.ndarray:
    """distance / width; where there is no width, 0 at or before the end and infinite beyond it."""
    has_width = width > 0.0
    beyond = np.where(distance > 0.0, np.inf, 0.0)
    return np.where(has_width, distance / np.where(has_width, width, 1.0), beyond)
