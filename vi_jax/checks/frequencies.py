"""Frequencies of the samples of a discrete guide against its probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.checks.problem import Problem, wide_context
from vi_jax.checks.report import Finding, Outcome, error, flagged, undecided
from vi_jax.checks.screen import threshold

MAX_POINTS = 4096


def frequencies(problem: Problem) -> Outcome:
    """For a discrete q with a small support: probabilities sum to 1, and samples come as often as
    they say.
    """
    if not problem.discrete:
        return Outcome()
    with wide_context(problem.wide):
        q = problem.guide
        grid = _grid(q)
        if grid is None:
            return undecided(
                "frequencies: q is discrete, and its support is unknown, unbounded or of more than "
                f"{MAX_POINTS} points."
            )
        log_q = np.asarray(jax.vmap(q.log_prob)(grid), np.float64)
        keys = jax.random.split(problem.fold("frequencies"))
        counts = [_counts(q.sample(key, (problem.num_samples,)), grid) for key in keys]
    total = float(np.exp(log_q).sum())
    if abs(total - 1.0) > 1e-3:
        return flagged(_not_one(total))
    if not _differ(counts, np.exp(log_q), problem.num_samples):
        return Outcome()
    message = "samples of q do not come as often as log_prob says."
    remedy = "Make both use the same logits or probabilities."
    largest = float(np.abs(counts[0] / problem.num_samples - np.exp(log_q)).max())
    return flagged(error("sample_log_prob", message, remedy, largest_difference=largest))


def _not_one(total: float) -> Finding:
    message = "the probabilities of q over its whole support do not sum to 1."
    remedy = "Normalise the logits (log_softmax) in q.log_prob; sum it over every coordinate."
    return error("normalisation", message, remedy, total=total)


def _grid(q: Any) -> Any:
    """Every value of a discrete q of one array, [S, ...]; None where that is not known to be
    small.
    """
    support = getattr(q, "support", None)
    shape = getattr(q, "event_shape", ())
    base = getattr(support, "base_constraint", support)
    low = getattr(base, "lower_bound", None)
    high = getattr(base, "upper_bound", None)
    if type(base).__name__.lower().lstrip("_") == "boolean":
        low = 0
        high = 1
    if low is None or high is None or np.ndim(low) or np.ndim(high):
        return None
    size = int(np.prod(shape))
    values = np.arange(int(low), int(high) + 1)
    if len(values) ** size > MAX_POINTS:
        return None
    points = np.stack(np.meshgrid(*[values] * size, indexing="ij"), -1) if size else values
    return jnp.asarray(points.reshape(-1, *shape))


def _counts(z: Any, grid: Any) -> np.ndarray:
    """How often each point of the grid was drawn."""
    rows = np.asarray(z).reshape(len(z), -1)
    points = np.asarray(grid).reshape(len(grid), -1)
    return np.array([(rows == point).all(1).sum() for point in points])


def _differ(counts: list[np.ndarray], probabilities: np.ndarray, num_samples: int) -> bool:
    """Whether some count is off beyond the threshold in both sets; cells that are expected fewer
    than 10 times are pooled.
    """
    big = probabilities * num_samples >= 10.0
    limit = threshold(len(probabilities) + 1)
    p = np.append(probabilities[big], probabilities[~big].sum())
    spread = np.sqrt(num_samples * p * (1.0 - p)) + 3.0
    off = [
        (np.append(count[big], count[~big].sum()) - num_samples * p) / spread for count in counts
    ]
    beyond = (np.abs(off[0]) > limit) & (np.abs(off[1]) > limit)
    return bool((beyond & (np.sign(off[0]) == np.sign(off[1]))).any())
