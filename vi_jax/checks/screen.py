"""Screening of statistics of mean 0: z-scores beyond a threshold in two independent sets."""

from statistics import NormalDist

import numpy as np

# of a screen over all its statistics, were they Gaussian; what it flags must show again in fresh
# samples
FALSE_ALARM = 1e-5


def z_scores(terms: np.ndarray) -> np.ndarray:
    """Mean over standard error of each column of terms [K, T]."""
    return terms.mean(0) / (terms.std(0, ddof=1) / terms.shape[0] ** 0.5 + 1e-9)


def threshold(num_statistics: int) -> float:
    """Standard errors that the largest of so many means of 0 passes with probability
    FALSE_ALARM.
    """
    return NormalDist().inv_cdf(1.0 - FALSE_ALARM / (2.0 * num_statistics))


def confirmed(first: np.ndarray, again: np.ndarray) -> tuple[bool, float]:
    """Whether some statistic is beyond the threshold, on the same side, in two independent sets [K,
    T]; and the largest.
    """
    scores = z_scores(first)
    fresh = z_scores(again)
    limit = threshold(first.shape[1])
    both = (np.abs(scores) > limit) & (np.abs(fresh) > limit) & (np.sign(scores) == np.sign(fresh))
    return bool(both.any()), float(np.abs(fresh).max(where=both, initial=0.0))
