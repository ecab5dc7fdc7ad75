"""The best of the models that `benchmarks.tables` tries on a table, by rows that are left out."""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import report, tables_fit, tables_intervals, tables_model
from benchmarks.tables_choices import SEEDS, VALIDATION, Candidate
from benchmarks.tables_fit import Fit, Recipe
from benchmarks.tables_model import table_model


class Fitted(NamedTuple):
    """The candidate that has the best validation bound, and its parameters."""

    model: Any
    candidate: Candidate
    found: Fit


def fit_best(
    train: np.ndarray,
    observed: np.ndarray | None,
    recipe: Recipe,
    candidates: tuple[Candidate, ...],
    bias: Any = 0.0,
    centred: np.ndarray | None = None,
) -> Fitted:
    """Every candidate trained on all but the first rows; `centred` gives the starting weights."""
    num_validation = len(train) // VALIDATION
    rows = tables_fit.as_rows(train, observed)
    validation = jax.tree.map(lambda leaf: leaf[:num_validation], rows)
    others = jax.tree.map(lambda leaf: leaf[num_validation:], rows)
    start = np.asarray(rows["values"]) if centred is None else centred
    tried = []
    for one in candidates:
        weights = tables_model.principal_weights(start, one.shape.num_latents)
        biases = tables_model.starting_biases(start, one.num_parts, SEEDS, bias)
        starts = tables_fit.Starts(weights, biases)
        found = tables_fit.fit(one.shape, recipe, starts, others, validation)
        report.say(f"  {one}: validation {np.round(found.validation, 2)} at {found.step}")
        tried.append(Fitted(table_model(train.shape[1], one.shape), one, found))
    return max(tried, key=lambda one: float(one.found.validation.mean()))


def fit_folds(
    train: np.ndarray,
    observed: np.ndarray,
    share: float,
    recipe: Recipe,
    candidates: tuple[Candidate, ...],
) -> list[tuple[Fitted, tables_intervals.Fold]]:
    """Fits that leave out some of the training rows, of which the first is the model's, and the
    rows; of as many folds as the calibration of intervals asks for.
    """
    size = len(train) // VALIDATION
    fits = []
    for number in range(tables_intervals.num_folds(size, VALIDATION)):
        # the first rows are those that are left out
        own = np.roll(train, -number * size, axis=0)
        seen = np.roll(observed, -number * size, axis=0)
        centred = np.where(seen, own, 0.0) / np.sqrt(1.0 - share)
        fitted = fit_best(own, seen, recipe, candidates, centred=centred)
        parts = (fitted.model, fitted.found.params, own[:size], seen[:size])
        fits.append((fitted, tables_intervals.Fold(*parts)))
    return fits
