"""log_joint(z, batch) at a few z for any choice of the rows of its batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vi_jax.checks.problem import Problem, take_rows, widened

NUM_Z = 8
UNMIX = (
    "Give both sides of every operation one shape: a [B] that meets a [B, 1] makes [B, B]. "
    "vmap a function of one row."
)


class Rows(NamedTuple):
    """log_joint at the same few z for any choice of rows, and its rounding."""

    at: Callable[[Any], np.ndarray]  # index [any] -> F [Z]
    per_example: Callable[[Any], np.ndarray] | None  # index [B] -> [Z, B]
    log_prior: np.ndarray | None  # [Z]
    num_rows: int
    base: np.ndarray  # F of the batch as it is, [Z]
    noise: float  # what a change of order changes, and a few roundings


def evaluate_rows(problem: Problem) -> Rows:
    """log_joint, per_example and log_prior at samples of q where log_joint is finite."""
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
    shuffled = at(problem.rng("order").permutation(problem.num_rows))
    noise = 20.0 * float(np.abs(shuffled - base).max(initial=0.0))
    eps = 1e-10 if problem.wide else 1e-5
    noise += eps * (1.0 + float(np.abs(base).max(initial=0.0)))
    return Rows(at, per_example, log_prior, problem.num_rows, base, noise)
