"""Scales in log_joint(z, batch): of the log likelihood as rows are added, and of the prior."""

from typing import NamedTuple

import numpy as np

from vi_jax.checks.batch import UNMIX, Rows
from vi_jax.checks.problem import Problem
from vi_jax.checks.report import Finding, error

TILED_ROWS = 32
# (F(4b) - F(2b)) / (F(2b) - F(b)): of m, 1/m, m^2
_GROWTH = {2.0: "sum", 0.5: "inverse", 4.0: "square"}


class Growth(NamedTuple):
    """How log_joint grows with copies of the same rows."""

    name: str  # one of _GROWTH, "constant", "other" or "unknown"
    log_prior: np.ndarray | None = None  # log p(z) [Z], where the growth shows it
    notes: tuple[str, ...] = ()  # what could not be decided


def growth_of(f: Rows) -> Growth:
    """How F grows with copies of the same rows."""
    index = np.arange(min(f.num_rows, TILED_ROWS))
    try:
        one, two, four = (f.at(np.tile(index, copies)) for copies in (1, 2, 4))
    except Exception as problem:
        reason = str(problem).splitlines()[0][:80]
        kind = type(problem).__name__
        return Growth(
            "unknown",
            notes=(f"rows: log_joint accepts no batch of another size ({kind}: {reason}).",),
        )
    first = two - one
    second = four - two
    tolerance = f.noise + 1e-6 * np.abs(four - f.base).max() + 1e-9 * np.abs(four).max()
    if max(np.abs(first).max(), np.abs(second).max()) <= tolerance:
        return Growth("constant")
    use = np.abs(first) > 10.0 * tolerance
    if not use.any():
        note = "rows: the data's part is too small beside rounding to see how it grows."
        return Growth("unknown", notes=(note,))
    ratios = second[use] / first[use]
    for ratio, name in _GROWTH.items():
        if (np.abs(ratios - ratio) < 0.02 * ratio).all():
            log_prior = 2.0 * one - two if name == "sum" else None
            return Growth(name, log_prior)
    return Growth("other")


def by_growth(problem: Problem, growth: str, f: Rows) -> list[Finding]:
    whole = problem.num_data in (None, f.num_rows)
    ratio = _ratio(problem, f)
    if growth in ("square", "other"):
        message = (
            "log_joint is neither a sum nor a mean over rows: its data's part does not "
            "grow as their number, nor stay."
        )
        return [error("rows_mixed", message, UNMIX)]
    if growth == "constant" and problem.num_data is None:
        message = (
            "copies of the rows leave log_joint as it is: the log likelihood is a mean "
            "over rows where a sum is expected."
        )
        remedy = "Take the sum over rows. If it is scaled by N/B on purpose, say num_data=N."
        return [error("mean_not_sum", message, remedy)]
    if growth == "inverse" and not (whole and problem.num_data is not None):
        message = (
            "what does not depend on the data shrinks as rows are added: the prior is "
            "scaled with the likelihood."
        )
        remedy = (
            "log p(z) + (N/B) * (sum of log p(x_i | z) over the rows): scale the likelihood alone."
        )
        return [error("prior_scale", message, remedy)]
    if growth == "sum" and not whole:
        message = (
            "copies of the rows double the data's part: it is a sum over rows, not scaled "
            f"by N/B = {ratio:.4g}."
        )
        remedy = (
            "Multiply the log likelihood's sum by num_data / (rows of the batch that it is given). "
            "If a constant of your code does "
            "so already, per_example= settles it."
        )
        return [error("minibatch_scale", message, remedy, wanted_scale=ratio)]
    return []


def by_terms(
    problem: Problem, f: Rows, batches: list[np.ndarray], values: np.ndarray
) -> tuple[float | None, list[Finding]]:
    """The factor of sum_i per_example_i in log_joint, by contrasts between batches at the same
    z.
    """
    if f.per_example is None:
        return None, []
    sums = np.stack([f.per_example(index).sum(1) for index in batches])
    x = sums - sums.mean(0)
    y = values - values.mean(0)
    if np.abs(x).max() < 1e-9 * (1.0 + np.abs(sums).max()):
        return None, []
    scale = float((x * y).sum() / (x * x).sum())
    rest = float(np.abs(y - scale * x).max() / (np.abs(y).max() + 1e-300))
    if rest > 1e-2:
        message = (
            "log_joint changes from batch to batch otherwise than the sum of per_example "
            "does: they are of two models."
        )
        remedy = "Use the same function of one row in both."
        return None, [error("terms_differ", message, remedy, unexplained=rest)]
    wanted = _ratio(problem, f)
    if abs(scale / wanted - 1.0) < 1e-2:
        return scale, []
    return scale, [_wrong_scale(scale, wanted, f.num_rows)]


def _wrong_scale(scale: float, wanted: float, num_rows: int) -> Finding:
    once_too_often = "it is divided by B once too often: a mean where a sum is expected"
    cases = [
        (-wanted, "sign", "its sign is flipped"),
        (1.0, "minibatch_scale", "it is not scaled by N/B"),
        (wanted / num_rows, "mean_not_sum", once_too_often),
        (1.0 / num_rows, "mean_not_sum", "it is a mean over rows"),
        (wanted**2, "minibatch_scale", "it is scaled by N/B twice"),
        (wanted * num_rows, "minibatch_scale", "it is B times too large"),
    ]
    near = [(name, what) for value, name, what in cases if abs(scale / value - 1.0) < 1e-2]
    name, what = near[0] if near else ("minibatch_scale", "that is none of the usual mistakes")
    message = (
        f"the sum of per_example enters log_joint {scale:.4g} times, and {wanted:.4g} is "
        f"expected: {what}."
    )
    remedy = (
        "log_joint = log_prior(z) + (N/B) * per_example(z, batch).sum(), N = B where the "
        "batch is all the data."
    )
    return error(name, message, remedy, scale=scale, wanted_scale=wanted)


def prior(
    problem: Problem, f: Rows, doubled: np.ndarray | None, scale: float | None
) -> list[Finding]:
    """The part of log_joint without data against log_prior, by contrasts between z."""
    if f.log_prior is None:
        return []
    part = doubled
    if scale is not None and f.per_example is not None:
        part = f.base - scale * f.per_example(np.arange(f.num_rows)).sum(1)
    if part is None:
        return []
    x = f.log_prior - f.log_prior.mean()
    y = part - part.mean()
    tolerance = 1e-2 * np.abs(x).max() + 4.0 * f.noise
    if np.abs(y - x).max() <= tolerance:
        return []
    slope = float((x * y).sum() / ((x * x).sum() + 1e-300))
    fits = float(np.abs(y - slope * x).max()) <= max(tolerance, 1e-2 * float(np.abs(y).max()))
    what = "it is something else (another prior, a log-determinant)"
    if fits:
        what = _multiple(slope, _ratio(problem, f), f.num_rows)
    name = "sign" if fits and abs(slope + 1.0) < 1e-2 else "prior_scale"
    message = f"the part of log_joint that does not depend on the data is not log_prior: {what}."
    remedy = "Add log_prior(z) once, with a plus sign, outside of the sum over rows and unscaled."
    return [error(name, message, remedy, slope=slope)]


def _multiple(slope: float, ratio: float, num_rows: int) -> str:
    """How many times log_prior is in log_joint, and what that number looks like."""
    what = f"it is {slope if abs(slope) > 1e-6 else 0.0:.4g} times log_prior"
    if abs(slope / ratio - 1.0) < 1e-2 and ratio != 1.0:
        what += " (N/B: scaled with the likelihood)"
    if abs(slope / num_rows - 1.0) < 1e-2:
        what += " (B: added once for each row)"
    return what


def _ratio(problem: Problem, f: Rows) -> float:
    """N/B; 1 where the batch is all the data."""
    return 1.0 if problem.num_data is None else problem.num_data / f.num_rows
