"""Stein's identity for a guide: whether sample and log_prob describe one distribution.

For samples u of a density q(u) that is continuous and falls to 0 far out, and any bounded smooth f,

    E_q[d log q/du_i] = 0;      E_q[f(u_j) d log q/du_i] = -E_q[df(u_j)/du_i]

(integration by parts), here with f = tanh of standardised coordinates. No constant of log q enters,
so its normalisation has a check of its own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.checks.problem import Problem, log_q_in_u, wide_context, widened
from vi_jax.checks.report import Outcome, error, flagged, undecided
from vi_jax.checks.screen import confirmed

Array = jax.Array
MAX_DIRECTIONS = 16


def stein(problem: Problem) -> Outcome:
    """E_q of the score and of Stein's operator are 0, in standard errors."""
    if problem.space is None:
        return undecided(
            "sample_log_prob: q is not continuous with a bijection to the reals; see frequencies."
        )
    if not (problem.scale > 0).all():
        return undecided("sample_log_prob: q is a point mass in some coordinate.")
    with wide_context(problem.wide):
        terms = jax.jit(lambda key: _stein_terms(problem, key, problem.mean, problem.scale))
        keys = jax.random.split(problem.fold("stein"))
        sets = [_finite_rows(np.asarray(terms(key))) for key in keys]
    wrong, largest = confirmed(*sets)
    if not wrong:
        return Outcome()
    message = (
        "sample and log_prob of q are not of one distribution: E_q[score of log q] and its "
        "moments are not what they must be."
    )
    remedy = (
        "Compare the two formulas: scale against variance, log-scale against scale, the inverse "
        "of the transform and its log-determinant."
    )
    numbers = {"standard_errors": largest, "statistics": sets[0].shape[1]}
    return flagged(error("sample_log_prob", message, remedy, **numbers))


def _finite_rows(terms: np.ndarray) -> np.ndarray:
    return terms[np.isfinite(terms).all(1)]


def _stein_terms(problem: Problem, key: Array, mean: np.ndarray, sd: np.ndarray) -> Array:
    """[K, T] terms whose means are 0: the score, each coordinate with itself, and pairs of
    directions.
    """
    space = problem.space
    q = problem.guide
    assert space is not None
    u = jax.vmap(space.to_u)(widened(q.sample(key, (problem.num_samples,))))  # [K, D]
    score = sd * jax.vmap(jax.grad(lambda u: log_q_in_u(problem, u)))(u)
    w = (u - mean) / sd
    axes = _directions(problem, space.size)  # [D, m]
    a = w @ axes  # [K, m]
    s = score @ axes  # [K, m]
    slopes = 1.0 - jnp.tanh(a) ** 2
    pairs = jnp.tanh(a)[:, :, None] * s[:, None, :] + slopes[:, :, None] * (axes.T @ axes)
    own = jnp.tanh(w) * score + 1.0 - jnp.tanh(w) ** 2
    return jnp.concatenate([score, own, pairs.reshape(len(u), -1)], axis=1)


def _directions(problem: Problem, size: int) -> np.ndarray:
    """The coordinate axes, or random directions where there are too many: [D, m]."""
    if size <= MAX_DIRECTIONS:
        return np.eye(size)
    return problem.rng("axes").standard_normal((size, MAX_DIRECTIONS)) / size**0.5
