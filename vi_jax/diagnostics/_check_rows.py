"""Checks of log_joint(z, batch) as a function of the rows of its batch, which are independent given
z.

With S(z, b) = sum_i log p(x_i | z) over the rows of b and B their number,

    all the data:  log_joint(z, b) = log p(z) +       S(z, b)
    minibatch:     log_joint(z, b) = log p(z) + (N/B) S(z, b)

so that doubling the rows doubles the data's part of the first and changes nothing in the second,
and replacing some rows changes it by as much whatever the others are. All of this is exact, for any
z.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vi_jax.diagnostics._check_problem import Problem, take_rows, wide_context, widened
from vi_jax.diagnostics._check_report import Finding, Outcome, error

Array = jax.Array
NUM_Z = 8
NUM_BATCHES = 6
TILED_ROWS = 32
# (F(4b) - F(2b)) / (F(2b) - F(b)): of m, 1/m, m^2
_GROWTH = {2.0: "sum", 0.5: "inverse", 4.0: "square"}


class Rows(NamedTuple):
    """log_joint at the same few z for any choice of rows, and its rounding."""

    at: Callable[[Any], np.ndarray]  # index [any] -> F [Z]
    per_example: Callable[[Any], np.ndarray] | None  # index [B] -> [Z, B]
    log_prior: np.ndarray | None  # [Z]
    num_rows: int
    base: np.ndarray  # F of the batch as it is, [Z]
    noise: float  # what a change of order changes, and a few roundings


def rows(problem: Problem) -> Outcome:
    """All that is asked of log_joint as a function of rows; nothing without a batch."""
    if problem.batch is None:
        note = (
            "rows: sums, means, N/B and mixed rows want batch= (and num_data=, where it is a "
            "minibatch)."
        )
        return Outcome((), (note,))
    if problem.num_rows < 2:
        return Outcome((), ("rows: one row says nothing of sums and means.",))
    with wide_context(problem.wide):
        f = _evaluator(problem)
        return _examine(problem, f, problem.rng("rows"))


def _evaluator(problem: Problem) -> Rows:
    q = problem.guide
    batch = widened(problem.batch)
    z = widened(q.sample(problem.fold("z of rows"), (4 * NUM_Z,)))
    evaluate = jax.jit(lambda z, batch: jax.vmap(lambda z: problem.joint(z, batch))(z))
    good = np.flatnonzero(np.isfinite(np.asarray(evaluate(z, batch))))[:NUM_Z]
    z = take_rows(z, good)
    terms = problem.per_example
    shape = None if terms is None else jax.eval_shape(terms, take_rows(z, 0), batch).shape
    per_example = None
    if terms is not None and shape == (problem.num_rows,):
        mapped = jax.jit(lambda z, batch: jax.vmap(lambda z: terms(z, batch))(z))
        per_example = lambda index: np.asarray(mapped(z, take_rows(batch, index)))  # noqa: E731
    log_prior = None if problem.log_prior is None else np.asarray(jax.vmap(problem.log_prior)(z))

    def at(index: Any) -> np.ndarray:
        return np.asarray(evaluate(z, take_rows(batch, np.asarray(index))), np.float64)

    base = at(np.arange(problem.num_rows))
    noise = float(
        np.abs(at(problem.rng("order").permutation(problem.num_rows)) - base).max(initial=0.0)
    )
    eps = 1e-10 if problem.wide else 1e-5
    return Rows(
        at,
        per_example,
        log_prior,
        problem.num_rows,
        base,
        20.0 * noise + eps * (1.0 + float(np.abs(base).max(initial=0.0))),
    )


def _examine(problem: Problem, f: Rows, rng: np.random.Generator) -> Outcome:
    if f.base.size < 2:
        return Outcome((), ("rows: log_joint is finite at too few draws of q.",))
    found = list(_per_example_shape(problem, f))
    samples = [rng.integers(0, f.num_rows, f.num_rows) for _ in range(NUM_BATCHES)]
    drawn = np.stack([f.at(index) for index in samples])  # [batches, Z]
    spread = float(np.abs(drawn - f.base).max())
    if f.noise > 1e-2 * spread and spread > 0:
        return Outcome(
            tuple(found),
            (
                "rows: the order of the rows matters (a time series, latents of each row): sums "
                "not checked.",
            ),
        )
    if spread <= f.noise:
        return Outcome((*found, *_unused(problem)))
    mixing = _mixing(f, rng, spread)
    if mixing is not None:
        return Outcome((*found, mixing))
    growth, doubled, note = _growth(f)
    found += _scale_by_growth(problem, growth, f)
    scale, wrong = _scale_by_terms(problem, f, samples, drawn)
    found = (
        [*found, *wrong]
        if scale is None
        else [*(x for x in found if x.name not in _SETTLED), *wrong]
    )
    found += _prior(problem, f, growth, doubled, scale)
    return Outcome(tuple(found), note)


_SETTLED = ("minibatch_scale", "mean_not_sum")  # what per_example decides better than growth


def _unused(problem: Problem) -> list[Finding]:
    same = all(
        bool((np.asarray(leaf) == np.asarray(leaf)[:1]).all())
        for leaf in jax.tree.leaves(problem.batch)
    )
    if same:
        return []
    remedy = "Use the argument `batch` in log_joint: it may read a global of the same name."
    return [
        error(
            "batch_unused",
            "log_joint does not depend on its batch: other rows give the same number.",
            remedy,
        )
    ]


def _per_example_shape(problem: Problem, f: Rows) -> list[Finding]:
    """per_example is [B], and its row i depends on example i alone."""
    if problem.per_example is None:
        return []
    if f.per_example is None:
        message = f"per_example(z, batch) is not of shape [B] = ({f.num_rows},)."
        return [
            error(
                "rows_mixed",
                message,
                "Return one term for each row; look for a [B] that met a [B, 1].",
            )
        ]
    order = np.arange(f.num_rows)
    half = order % 2 == 0
    moved = np.where(half, (order + 1) % f.num_rows, order)
    before = f.per_example(order)
    after = f.per_example(moved)
    off = np.abs(after - before)[:, ~half].max()
    if off <= 1e-6 * (1.0 + np.abs(before).max()):
        return []
    message = "per_example of a row changes when other rows change: terms of examples are mixed."
    return [error("rows_mixed", message, _UNMIX, change=float(off))]


_UNMIX = (
    "Give both sides of every operation one shape: a [B] that meets a [B, 1] makes [B, B]. "
    "vmap a function of one row."
)


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
    return error("rows_mixed", message, _UNMIX, interaction=largest, spread_over_batches=spread)


def _growth(f: Rows) -> tuple[str, np.ndarray | None, tuple[str, ...]]:
    """How F grows with copies of the same rows, and log p(z) [Z] where that tells it."""
    index = np.arange(min(f.num_rows, TILED_ROWS))
    try:
        one, two, four = (f.at(np.tile(index, copies)) for copies in (1, 2, 4))
    except Exception as problem:
        reason = str(problem).splitlines()[0][:80]
        return (
            "unknown",
            None,
            (
                f"rows: log_joint takes no batch of another size ({type(problem).__name__}: "
                f"{reason}).",
            ),
        )
    first = two - one
    second = four - two
    tolerance = f.noise + 1e-6 * np.abs(four - f.base).max() + 1e-9 * np.abs(four).max()
    if max(np.abs(first).max(), np.abs(second).max()) <= tolerance:
        return "constant", None, ()
    use = np.abs(first) > 10.0 * tolerance
    if not use.any():
        return (
            "unknown",
            None,
            ("rows: the data's part is too small beside rounding to see how it grows.",),
        )
    ratios = second[use] / first[use]
    for ratio, name in _GROWTH.items():
        if (np.abs(ratios - ratio) < 0.02 * ratio).all():
            return name, (2.0 * one - two if name == "sum" else None), ()
    return "other", None, ()


def _scale_by_growth(problem: Problem, growth: str, f: Rows) -> list[Finding]:
    whole = problem.num_data in (None, f.num_rows)
    ratio = 1.0 if problem.num_data is None else problem.num_data / f.num_rows
    if growth in ("square", "other"):
        message = (
            "log_joint is neither a sum nor a mean over rows: its data's part does not "
            "grow as their number, nor stay."
        )
        return [error("rows_mixed", message, _UNMIX)]
    if growth == "constant" and problem.num_data is None:
        message = (
            "copies of the rows leave log_joint as it is: the log likelihood is a mean "
            "over rows where a sum is wanted."
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
            "Multiply the log likelihood's sum by num_data / (rows of the batch it is handed). "
            "If a constant of your code does "
            "so already, per_example= settles it."
        )
        return [error("minibatch_scale", message, remedy, wanted_scale=ratio)]
    return []


def _scale_by_terms(
    problem: Problem, f: Rows, samples: list[np.ndarray], drawn: np.ndarray
) -> tuple[float | None, list[Finding]]:
    """The factor of sum_i per_example_i in log_joint, by contrasts between batches at the same
    z.
    """
    if f.per_example is None:
        return None, []
    sums = np.stack([f.per_example(index).sum(1) for index in samples])
    x = sums - sums.mean(0)
    y = drawn - drawn.mean(0)
    if np.abs(x).max() < 1e-9 * (1.0 + np.abs(sums).max()):
        return None, []
    scale = float((x * y).sum() / (x * x).sum())
    rest = float(np.abs(y - scale * x).max() / (np.abs(y).max() + 1e-300))
    if rest > 1e-2:
        message = (
            "log_joint changes from batch to batch otherwise than the sum of per_example "
            "does: they are of two models."
        )
        return None, [
            error(
                "terms_differ",
                message,
                "Use the same function of one row in both.",
                unexplained=rest,
            )
        ]
    wanted = 1.0 if problem.num_data is None else problem.num_data / f.num_rows
    if abs(scale / wanted - 1.0) < 1e-2:
        return scale, []
    return scale, [_wrong_scale(scale, wanted, f.num_rows)]


def _wrong_scale(scale: float, wanted: float, num_rows: int) -> Finding:
    cases = [
        (-wanted, "sign", "its sign is flipped"),
        (1.0, "minibatch_scale", "it is not scaled by N/B"),
    ]
    cases += [
        (
            wanted / num_rows,
            "mean_not_sum",
            "it is divided by B once too often: a mean where a sum is wanted",
        )
    ]
    cases += [(1.0 / num_rows, "mean_not_sum", "it is a mean over rows")]
    cases += [
        (wanted**2, "minibatch_scale", "it is scaled by N/B twice"),
        (wanted * num_rows, "minibatch_scale", "it is B times too large"),
    ]
    near = [(name, what) for value, name, what in cases if abs(scale / value - 1.0) < 1e-2]
    name, what = near[0] if near else ("minibatch_scale", "that is none of the usual mistakes")
    message = (
        f"the sum of per_example enters log_joint {scale:.4g} times, and {wanted:.4g} is "
        f"wanted: {what}."
    )
    remedy = (
        "log_joint = log_prior(z) + (N/B) * per_example(z, batch).sum(), N = B where the "
        "batch is all the data."
    )
    return error(name, message, remedy, scale=scale, wanted_scale=wanted)


def _prior(
    problem: Problem, f: Rows, growth: str, doubled: np.ndarray | None, scale: float | None
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
    ratio = 1.0 if problem.num_data is None else problem.num_data / f.num_rows
    what = "it is something else (another prior, a log-determinant)"
    if fits:
        what = f"it is {slope if abs(slope) > 1e-6 else 0.0:.4g} times log_prior"
        what += (
            " (N/B: scaled with the likelihood)"
            if abs(slope / ratio - 1.0) < 1e-2 and ratio != 1.0
            else ""
        )
        what += " (B: added once for each row)" if abs(slope / f.num_rows - 1.0) < 1e-2 else ""
    name = "sign" if fits and abs(slope + 1.0) < 1e-2 else "prior_scale"
    message = f"the part of log_joint that does not depend on the data is not log_prior: {what}."
    remedy = "Add log_prior(z) once, with a plus sign, outside of the sum over rows and unscaled."
    return [error(name, message, remedy, slope=slope)]
