"""Checks of log_joint(z, batch) as a function of the rows of its batch, independent given z.

With S(z, b) = sum_i log p(x_i | z) over the rows of b and B their number,

    all the data:  log_joint(z, b) = log p(z) +       S(z, b)
    minibatch:     log_joint(z, b) = log p(z) + (N/B) S(z, b)

so that doubling the rows doubles the data's part of the first and changes nothing in the second,
and replacing some rows changes it by as much whatever the others are. All of this is exact, for any
z.
"""

import jax
import numpy as np

from vi_jax.checks import row_scales
from vi_jax.checks.batch import UNMIX, Rows, evaluate_rows
from vi_jax.checks.problem import Problem, wide_context
from vi_jax.checks.report import Finding, Outcome, error, undecided

Array = jax.Array
NUM_BATCHES = 6
_SETTLED = ("minibatch_scale", "mean_not_sum")  # what per_example decides better than growth


def rows(problem: Problem) -> Outcome:
    """All checks of log_joint as a function of rows; nothing without a batch."""
    if problem.batch is None:
        return undecided(
            "rows: sums, means, N/B and mixed rows need batch= (and num_data=, where it is a "
            "minibatch)."
        )
    if problem.num_rows < 2:
        return undecided("rows: one row says nothing of sums and means.")
    with wide_context(problem.wide):
        return _examine(problem, evaluate_rows(problem), problem.rng("rows"))


def _examine(problem: Problem, f: Rows, rng: np.random.Generator) -> Outcome:
    if f.base.size < 2:
        return undecided("rows: log_joint is finite at too few samples of q.")
    found = _per_example_shape(problem, f)
    batches = [rng.integers(0, f.num_rows, f.num_rows) for _ in range(NUM_BATCHES)]
    values = np.stack([f.at(index) for index in batches])  # [batches, Z]
    spread = float(np.abs(values - f.base).max())
    if f.noise > 1e-2 * spread and spread > 0:
        note = (
            "rows: the order of the rows matters (a time series, latents of each row): sums not "
            "checked."
        )
        return Outcome(tuple(found), (note,))
    if spread <= f.noise:
        return Outcome((*found, *_unused(problem)))
    mixing = _mixing(f, rng, spread)
    if mixing is not None:
        return Outcome((*found, mixing))
    growth = row_scales.growth_of(f)
    found += row_scales.by_growth(problem, growth.name, f)
    scale, wrong = row_scales.by_terms(problem, f, batches, values)
    if scale is not None:
        found = [finding for finding in found if finding.name not in _SETTLED]
    found += [*wrong, *row_scales.prior(problem, f, growth.log_prior, scale)]
    return Outcome(tuple(found), growth.notes)


def _unused(problem: Problem) -> list[Finding]:
    same = all(
        bool((np.asarray(leaf) == np.asarray(leaf)[:1]).all())
        for leaf in jax.tree.leaves(problem.batch)
    )
    if same:
        return []
    remedy = "Use the argument `batch` in log_joint: it may read a global of the same name."
    message = "log_joint does not depend on its batch: other rows give the same number."
    return [error("batch_unused", message, remedy)]


def _per_example_shape(problem: Problem, f: Rows) -> list[Finding]:
    """per_example is [B], and its row i depends on example i alone."""
    if problem.per_example is None:
        return []
    if f.per_example is None:
        message = f"per_example(z, batch) is not of shape [B] = ({f.num_rows},)."
        remedy = "Return one term for each row; look for a [B] that met a [B, 1]."
        return [error("rows_mixed", message, remedy)]
    order = np.arange(f.num_rows)
    half = order % 2 == 0
    moved = np.where(half, (order + 1) % f.num_rows, order)
    before = f.per_example(order)
    after = f.per_example(moved)
    off = np.abs(after - before)[:, ~half].max()
    if off <= 1e-6 * (1.0 + np.abs(before).max()):
        return []
    message = "per_example of a row changes when other rows change: terms of examples are mixed."
    return [error("rows_mixed", message, UNMIX, change=float(off))]


def _mixing(f: Rows, rng: np.random.Generator, spread: float) -> Finding | None:
    """F(x) + F(y) - F(x with rows of y) - F(y with rows of x) is 0 where rows do not meet."""
    order = np.arange(f.num_rows)
    largest = 0.0
    for _ in range(3):
        other = rng.permutation(f.num_rows)
        half = rng.permutation(f.num_rows) < f.num_rows // 2
        cross = f.at(np.where(half, other, order)) + f.at(np.where(half, order, other))
        largest = max(largest, float(np.abs(f.base + f.at(other) - cross).max()))
    if largest <= 1e-3 * spread + 8.0 * f.noise:
        return None
    message = (
        "what one row adds to log_joint depends on the other rows: terms of examples are mixed."
    )
    return error("rows_mixed", message, UNMIX, interaction=largest, spread_over_batches=spread)
