"""Whether a guide's density is normalised, by importance sampling against a Gaussian, both ways."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vi_jax.checks.problem import Problem, log_q_in_u, wide_context, widened
from vi_jax.checks.report import Outcome, error, flagged, undecided

Array = jax.Array


def normalisation(problem: Problem) -> Outcome:
    """log of the integral of exp(log q), between two estimates that err on opposite sides.

    With r a Gaussian fitted to samples, E_r[q / r] comes out low and 1 / E_q[r / q] high where r
    and q miss parts of each other, so that log q is called wrong only if both say so.
    """
    if problem.space is None:
        return Outcome()
    brackets = _brackets(problem)
    low = min(bracket[0] for bracket in brackets)
    high = max(bracket[1] for bracket in brackets)
    if np.isnan(low + high) or high - low > 1.0:
        return undecided(
            f"normalisation: log of q's integral is between {low:.2g} and {high:.2g}; q is too far "
            "from a Gaussian to say more."
        )
    is_above = all(bracket[0] > 0.02 for bracket in brackets)
    is_below = all(bracket[1] < -0.02 for bracket in brackets)
    if not is_above and not is_below:
        return Outcome()
    message = (
        "log q is not normalised: its integral is not 1 (0 nats), by importance sampling both ways."
    )
    remedy = (
        "Look for a missing log-determinant or a normalising constant (log sigma, D/2 log 2 pi) in "
        "q.log_prob."
    )
    numbers = {"log_integral_low": low, "log_integral_high": high}
    return flagged(error("normalisation", message, remedy, **numbers))


def _brackets(problem: Problem) -> list[tuple[float, float]]:
    """Two brackets of log of q's integral, from samples of their own."""
    space = problem.space
    assert space is not None
    shape = (problem.num_samples,)
    with wide_context(problem.wide):
        draw = jax.jit(lambda key: jax.vmap(space.to_u)(widened(problem.guide.sample(key, shape))))
        log_q = jax.jit(jax.vmap(lambda u: log_q_in_u(problem, u)))
        keys = jax.random.split(problem.fold("normalisation"), 4)
        samples = [np.asarray(draw(key)) for key in keys]
        noise = problem.rng("noise")
        return [_bracket(log_q, fitted, u, noise) for fitted, u in (samples[:2], samples[2:])]


def _bracket(
    log_q: Callable[[Any], Array], fitted: np.ndarray, u_q: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Bounds of log of q's integral, each 5 standard errors out; nan where there is none."""
    mean, factor = _fit_gaussian(fitted[np.isfinite(fitted).all(1)])
    noise = rng.standard_normal(u_q.shape)
    moved = noise * factor if factor.ndim == 1 else noise @ factor.T
    u_r = (mean + moved).astype(u_q.dtype)
    forward = np.asarray(log_q(u_r)) - _log_gaussian(u_r, mean, factor)
    backward = _log_gaussian(u_q, mean, factor) - np.asarray(log_q(u_q))
    low, low_err = _log_mean(forward)
    high, high_err = _log_mean(backward)
    return low - 5.0 * low_err, -high + 5.0 * high_err


def _fit_gaussian(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] and a Cholesky factor [D, D]; where samples are few for a matrix, the standard
    deviations [D].
    """
    if u.shape[1] > u.shape[0] // 16:
        return u.mean(0), u.std(0)
    covariance = np.atleast_2d(np.cov(u.T))
    return u.mean(0), np.linalg.cholesky(covariance + 1e-9 * np.diag(np.diag(covariance)))


def _log_gaussian(u: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    diagonal = factor if factor.ndim == 1 else np.diag(factor)
    w = (u - mean) / factor if factor.ndim == 1 else np.linalg.solve(factor, (u - mean).T).T
    return -0.5 * (w**2).sum(1) - np.log(diagonal).sum() - 0.5 * u.shape[1] * np.log(2.0 * np.pi)


def _log_mean(log_w: np.ndarray) -> tuple[float, float]:
    """log of the mean weight, and its standard error."""
    log_w = np.where(np.isnan(log_w), -np.inf, log_w)
    peak = log_w.max()
    if not np.isfinite(peak):
        return float("nan"), float("nan")
    w = np.exp(log_w - peak)
    return float(peak + np.log(w.mean())), float(w.std(ddof=1) / w.mean() / w.size**0.5)
