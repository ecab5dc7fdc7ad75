"""Intervals of `benchmarks.tables`, calibrated by entries of training rows that were hidden from a
fit without these rows (`vi_jax.diagnostics.conformal`); no test entry is looked at.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import tables_fit
from vi_jax.diagnostics import conformal
from vi_jax.types import Model, Params

COVERAGE = 0.9
NUM_ROWS = 140  # that entries are hidden in, at least: those of so many folds
NUM_PASSES = 8  # over them, with one entry of each row hidden in each


class Ends(NamedTuple):
    """Quantiles of imputed entries, [seeds, ...]."""

    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray

    def of(self, seed: int, which: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of some entries of a seed, [M] each."""
        return tuple(ends[seed][which] for ends in self)


class Fold(NamedTuple):
    """Rows, and a model that was fitted without them."""

    model: Model
    params: Params  # leaves [seeds, ...]
    values: np.ndarray  # [N, D]
    observed: np.ndarray


def num_folds(size: int, most: int) -> int:
    """How many folds of so many rows have NUM_ROWS together, at most all of them."""
    return min(most, -(-NUM_ROWS // size))


def ends_of(draws: Any) -> Ends:
    """The interval of each entry, [seeds, N, D], from draws [seeds, S, N, D]."""
    tail = 0.5 * (1.0 - COVERAGE)
    return Ends(*np.quantile(np.asarray(draws), [tail, 0.5, 1.0 - tail], axis=1))


def calibrate(folds: list[Fold], num_draws: int, seed: int = 7) -> list[conformal.Widening]:
    """By how much intervals are widened, for each seed of the fits.

    An entry at a time is hidden in a row, so that of a row whose entries are missing completely at
    random as much is left as beside one that is missing.
    """
    rng = np.random.default_rng(seed)
    truth = []
    parts = []
    for fold in folds:
        for _ in range(NUM_PASSES):
            is_hidden = one_of_each(rng, fold.observed)
            rows = tables_fit.as_rows(fold.values, fold.observed & ~is_hidden)
            draws = tables_fit.impute(fold.model, fold.params, rows, num_draws)
            truth.append(fold.values[is_hidden])
            parts.append(jax.tree.map(lambda each, h=is_hidden: each[:, h], ends_of(draws.values)))
    x = np.concatenate(truth)
    ends = Ends(*(np.concatenate(each, axis=1) for each in zip(*parts, strict=True)))
    everything = np.ones(len(x), bool)
    return [
        conformal.calibrate(x, *ends.of(number, everything), coverage=COVERAGE)
        for number in range(len(ends.lower))
    ]


def one_of_each(rng: np.random.Generator, observed: np.ndarray) -> np.ndarray:
    """One observed entry of each row that has any, bools [N, D]."""
    order = np.where(observed, rng.random(observed.shape), -1.0)
    is_first = np.arange(observed.shape[1]) == order.argmax(axis=1)[:, None]
    return is_first & observed


def covered(x: np.ndarray, ends: Ends, which: np.ndarray, factors: list[float]) -> list[float]:
    """The share of some entries of rows [N, D] within their intervals, widened, for each seed."""
    found = []
    for number, factor in enumerate(factors):
        (low, high) = conformal.widened(*ends.of(number, which), factor)
        found.append(float(np.mean((low <= x[which]) & (x[which] <= high))))
    return found
