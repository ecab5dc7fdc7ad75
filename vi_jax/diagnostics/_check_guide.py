"""Do sample and log_prob of a guide describe one distribution, and is that density normalised.

For draws u of a density q(u) that is continuous and falls to 0 far out, and any bounded smooth f,

    E_q[d log q/du_i] = 0;      E_q[f(u_j) d log q/du_i] = -E_q[df(u_j)/du_i]

(integration by parts; Stein), here with f = tanh of standardised coordinates. No constant of log q
enters, so its normalisation has a check of its own.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics._check_problem import Problem, wide_context, widened
from vi_jax.diagnostics._check_report import Outcome, error

Array = jax.Array
MAX_DIRECTIONS = 16
# of a screen over all its statistics, were they Gaussian; what it flags must show again in fresh
# draws
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


def stein(problem: Problem) -> Outcome:
    """E_q of the score and of Stein's operator are 0, in standard errors."""
    if problem.space is None:
        return Outcome(
            (),
            (
                "sample_log_prob: q is not continuous with a bijection to the reals; see "
                "frequencies.",
            ),
        )
    if not (problem.scale > 0).all():
        return Outcome((), ("sample_log_prob: q is a point mass in some coordinate.",))
    with wide_context(problem.wide):
        terms = jax.jit(lambda key: _stein_terms(problem, key, problem.mean, problem.scale))
        sets = [
            _finite_rows(np.asarray(terms(key))) for key in jax.random.split(problem.fold("stein"))
        ]
    wrong, largest = confirmed(*sets)
    if not wrong:
        return Outcome()
    message = (
        "sample and log_prob of q are not of one distribution: E_q[score of log q] and its "
        "moments are not what they must be."
    )
    remedy = (
        "Compare the two formulas: scale against variance, log-scale against scale, the inverse "
        "of the transform and "
        "its log-determinant."
    )
    return Outcome(
        (
            error(
                "sample_log_prob",
                message,
                remedy,
                standard_errors=largest,
                statistics=sets[0].shape[1],
            ),
        )
    )


def _finite_rows(terms: np.ndarray) -> np.ndarray:
    return terms[np.isfinite(terms).all(1)]


def _log_q_in_u(problem: Problem, u: Array) -> Array:
    space = problem.space
    q = problem.guide
    assert space is not None
    return q.log_prob(space.to_z(u)) + space.log_det(u)


def _stein_terms(problem: Problem, key: Array, mean: np.ndarray, sd: np.ndarray) -> Array:
    """[K, T] terms whose means are 0: the score, each coordinate with itself, and pairs of
    directions.
    """
    space = problem.space
    q = problem.guide
    assert space is not None
    u = jax.vmap(space.to_u)(widened(q.sample(key, (problem.num_samples,))))  # [K, D]
    score = sd * jax.vmap(jax.grad(lambda u: _log_q_in_u(problem, u)))(u)
    w = (u - mean) / sd
    m = min(space.size, MAX_DIRECTIONS)
    axes = (
        np.eye(m)
        if m == space.size
        else problem.rng("axes").standard_normal((space.size, m)) / space.size**0.5
    )
    # [K, m]
    a = w @ axes
    s = score @ axes
    pairs = jnp.tanh(a)[:, :, None] * s[:, None, :] + (1.0 - jnp.tanh(a) ** 2)[:, :, None] * (
        axes.T @ axes
    )
    own = jnp.tanh(w) * score + 1.0 - jnp.tanh(w) ** 2
    return jnp.concatenate([score, own, pairs.reshape(-1, m * m)], axis=1)


def normalisation(problem: Problem) -> Outcome:
    """log of the integral of exp(log q), between two estimates that err on opposite sides.

    With r a Gaussian fitted to draws, E_r[q / r] comes out low and 1 / E_q[r / q] high where r and
    q miss parts of each other, so that log q is called wrong only if both say so.
    """
    if problem.space is None:
        return Outcome()
    space = problem.space
    shape = (problem.num_samples,)
    with wide_context(problem.wide):
        draw = jax.jit(lambda key: jax.vmap(space.to_u)(widened(problem.guide.sample(key, shape))))
        log_q = jax.jit(jax.vmap(lambda u: _log_q_in_u(problem, u)))
        keys = jax.random.split(problem.fold("normalisation"), 4)
        draws = [np.asarray(draw(key)) for key in keys]
        noise = problem.rng("noise")
        brackets = [_bracket(log_q, fitted, u, noise) for fitted, u in (draws[:2], draws[2:])]
    low = min(b[0] for b in brackets)
    high = max(b[1] for b in brackets)
    if np.isnan(low + high) or high - low > 1.0:
        return Outcome(
            (),
            (
                f"normalisation: log of q's integral is between {low:.2g} and {high:.2g}; q is "
                "too far from a Gaussian to say more.",
            ),
        )
    if all(b[0] > 0.02 for b in brackets) or all(b[1] < -0.02 for b in brackets):
        message = (
            "log q is not normalised: its integral is not 1 (0 nats), by importance "
            "sampling both ways."
        )
        remedy = (
            "Look for a missing log-determinant or a normalising constant (log sigma, D/2 "
            "log 2 pi) in q.log_prob."
        )
        return Outcome(
            (error("normalisation", message, remedy, log_integral_low=low, log_integral_high=high),)
        )
    return Outcome()


def _bracket(
    log_q: Callable[[Any], Array], pilot: np.ndarray, u_q: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Bounds of log of q's integral, each 5 standard errors out; nan where there is none."""
    mean, factor = _fit_gaussian(pilot[np.isfinite(pilot).all(1)])
    noise = rng.standard_normal(u_q.shape)
    u_r = (mean + (noise * factor if factor.ndim == 1 else noise @ factor.T)).astype(u_q.dtype)
    forward = np.asarray(log_q(u_r)) - _log_gaussian(u_r, mean, factor)
    backward = _log_gaussian(u_q, mean, factor) - np.asarray(log_q(u_q))
    (low, low_err) = _log_mean(forward)
    (high, high_err) = _log_mean(backward)
    return low - 5.0 * low_err, -high + 5.0 * high_err


def _fit_gaussian(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] and a Cholesky factor [D, D]; where draws are few for a matrix, the standard
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


def frequencies(problem: Problem) -> Outcome:
    """For a discrete q with a small support: probabilities sum to 1, and draws come as often as
    they say.
    """
    if not problem.discrete:
        return Outcome()
    with wide_context(problem.wide):
        q = problem.guide
        grid = _grid(q)
        if grid is None:
            return Outcome(
                (),
                (
                    "frequencies: q is discrete, and its support is unknown, unbounded or of "
                    "more than 4096 points.",
                ),
            )
        log_q = np.asarray(jax.vmap(q.log_prob)(grid), np.float64)
        counts = [
            _counts(q.sample(key, (problem.num_samples,)), grid)
            for key in jax.random.split(problem.fold("frequencies"))
        ]
    found = []
    total = float(np.exp(log_q).sum())
    if abs(total - 1.0) > 1e-3:
        remedy = "Normalise the logits (log_softmax) in q.log_prob; sum it over every coordinate."
        found.append(
            error(
                "normalisation",
                "the probabilities of q over its whole support do not sum to 1.",
                remedy,
                total=total,
            )
        )
    elif _differ(counts, np.exp(log_q), problem.num_samples):
        message = "draws of q do not come as often as log_prob says."
        largest = float(np.abs(counts[0] / problem.num_samples - np.exp(log_q)).max())
        found.append(
            error(
                "sample_log_prob",
                message,
                "Make both use the same logits or probabilities.",
                largest_difference=largest,
            )
        )
    return Outcome(tuple(found))


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
    size = int(np.prod(shape))
    if (
        low is None
        or high is None
        or np.ndim(low)
        or np.ndim(high)
        or (int(high) - int(low) + 1) ** size > 4096
    ):
        return None
    values = np.arange(int(low), int(high) + 1)
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
    return bool(
        (
            (np.abs(off[0]) > limit)
            & (np.abs(off[1]) > limit)
            & (np.sign(off[0]) == np.sign(off[1]))
        ).any()
    )
