"""Improper densities and missing log-determinants: whether exp(log_joint) has a finite integral, by
rays outwards in unconstrained coordinates.

A density of u [D] that can be normalised falls along almost every ray, at least as fast as -D log
|u|. One that rises on nearly all of them is the negative of a log density; one that rises or stays
level on some is improper: a prior, or a log-determinant, is missing.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from vi_jax import linalg
from vi_jax.checks.problem import (
    Problem,
    log_joint_in_u,
    over_rows,
    wide_context,
    widened,
)
from vi_jax.checks.report import Finding, Outcome, error, flagged, undecided

Array = jax.Array
NUM_RANDOM = 12
MAX_AXES = 12
# in units of max(1, standard deviation of q)
RADII = np.concatenate([[0.0], 10.0 ** np.arange(0.0, 8.25, 0.5)])
# judged from this radius, over this many radii (a decade)
_FLAT_BEYOND = 100.0
_FLAT_DECADE = 2


def tails(problem: Problem) -> Outcome:
    """log_joint falls along rays away from q's mean, up to radii of 1e8 where floats reach."""
    if problem.space is None or not problem.wide:
        return undecided(
            "tails: needs continuous latents with a bijection to the reals, and float64."
        )
    space = problem.space
    log_joint = log_joint_in_u(problem)
    directions, axes = _directions(problem.rng("rays"), space.size)
    # [rays, radii, D]
    points = (
        problem.mean + RADII[:, None] * (np.maximum(problem.scale, 1.0) * directions)[:, None, :]
    )

    def at(u: Array, batch: Any) -> tuple[Array, Array, Array]:
        return log_joint(u, batch), space.to_u(space.to_z(u)), space.log_det(u)

    flat = points.reshape(-1, space.size)
    with wide_context():
        values, returned, log_det = over_rows(at, flat, widened(problem.batch))
    known = _returns(points.reshape(returned.shape), returned) & np.isfinite(log_det)
    values = np.where(known, values, np.nan).reshape(points.shape[:2])
    if _may_underflow(values):
        with wide_context(False):
            narrow = over_rows(
                lambda u, batch: log_joint(u, batch), flat.astype(np.float32), problem.batch
            )
        values = _without_underflow(values, narrow.reshape(values.shape))
    return _verdict(np.array([_kind(row) for row in values]), axes)


def _may_underflow(values: np.ndarray) -> bool:
    """Whether some ray is level and then -inf: at the bound of a uniform prior, or where e^u is
    rounded to 0.
    """
    return any(
        _level(row[: np.argmax(row == -np.inf)])
        for row in values
        if (row == -np.inf).any() and not np.isnan(row).any()
    )


def _without_underflow(values: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    """-inf that float32 meets nearer to q than float64 is rounding: NaN there; a bound of the
    support would be where it is.
    """
    first, first_narrow = (np.argmax(rows == -np.inf, axis=1) for rows in (values, narrow))
    rounding = (values == -np.inf).any(1) & (narrow == -np.inf).any(1) & (first_narrow < first)
    level = np.array([_level(row[:end]) for row, end in zip(values, first, strict=True)])
    return np.where((rounding & level)[:, None] & (values == -np.inf), np.nan, values)


def _directions(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[int]]:
    """Random directions of unit scale and axes, both ways: [rays, D], and the axis of each ray (-1
    for random ones).
    """
    random = rng.standard_normal((NUM_RANDOM if size > 1 else 0, size)) / size**0.5
    chosen = rng.permutation(size)[:MAX_AXES]
    along = np.zeros((len(chosen), size))
    along[np.arange(len(chosen)), chosen] = 1.0
    half = np.concatenate([random, along])
    names = [-1] * len(random) + [int(axis) for axis in chosen]
    return np.concatenate([half, -half]), names * 2


def _returns(points: np.ndarray, returned: np.ndarray) -> np.ndarray:
    """Where u -> z -> u is the identity: z has not been rounded to the edge of its support."""
    return (np.abs(returned - points) <= 1e-3 * (1.0 + np.abs(points))).all(-1)


def _kind(values: np.ndarray) -> str:
    """rises, level, falls or unknown, of the values along one ray; NaN where they are not known."""
    known = ~np.isnan(values)
    radii = RADII[known]
    values = values[known]
    if len(values) < 4 or radii[-1] < 10.0:
        return "unknown"
    if values[-1] == np.inf:
        return "rises"
    if values[-1] == -np.inf or not np.isfinite(values[-4:]).all():
        return "falls"
    steps = np.diff(values[-3:])
    size = 1.0 + np.abs(values[-1])
    if (steps > 0).all() and steps[1] >= 0.5 * steps[0] and steps[1] > 0.5 + 1e-9 * size:
        return "rises"
    return "level" if radii[-1] >= _FLAT_BEYOND and _level(values) else "falls"


def _level(values: np.ndarray) -> bool:
    """Whether the last decade of radii changes nothing."""
    return (
        len(values) > 5
        and abs(values[-1] - values[-1 - _FLAT_DECADE]) < 0.01
        and abs(values[-1]) < 1e10
    )


def _verdict(kinds: np.ndarray, axes: list[int]) -> Outcome:
    known = kinds != "unknown"
    if known.sum() < 2:
        return undecided(
            "tails: log_joint is NaN, or its support rounded to an edge, on nearly every ray."
        )
    rising = kinds == "rises"
    level = kinds == "level"
    share = rising[known].mean()
    numbers = {"rays": int(known.sum()), "rising": int(rising.sum()), "level": int(level.sum())}
    if share > 0.9:
        message = (
            "log_joint rises without bound in every direction away from q: it is the "
            "negative of a log density, or has no prior."
        )
        remedy = (
            "Return log p(x, z), larger for likelier z (not a loss or an energy), and add "
            "the log prior."
        )
        return flagged(error("sign", message, remedy, **numbers))
    guilty = sorted({axes[i] for i in np.flatnonzero(rising | level) if axes[i] >= 0})
    if guilty or (rising | level).sum() >= 2:
        return flagged(_improper(guilty, numbers))
    return Outcome()


def _improper(axes: list[int], numbers: dict[str, Any]) -> Finding:
    where = f"along unconstrained coordinate(s) {axes}" if axes else "along some rays"
    message = (
        f"log_joint does not fall {where} as far as floats reach: it cannot be normalised, "
        "and the ELBO has no maximum."
    )
    remedy = (
        "Add the missing prior; if z is a transformed variable (a log-scale, logits), add log |d "
        "constrained / dz|; if the model "
        "has constraints, give q their support."
    )
    return error("improper", message, remedy, **numbers)


def log_determinant(problem: Problem) -> Outcome:
    """With `constrained=(log_density, T)`: log_joint(u) - log_density(T(u)) is log |dT/du| by brute
    force, up to a constant.
    """
    if problem.constrained is None:
        note = (
            "log_det: whether a change of variables in log_joint is complete needs "
            "constrained=(log_density, transform)."
        )
        return undecided(note)
    log_density, transform = problem.constrained
    with wide_context(problem.wide):
        z = widened(problem.guide.sample(problem.fold("log_det"), (64,)))

        def gaps(z: Any, batch: Any) -> tuple[Array, Array]:
            return problem.joint(z, batch) - log_density(transform(z)), brute_force_log_det(
                transform, z
            )

        gap, log_det = over_rows(gaps, z, widened(problem.batch))
    known = np.isfinite(gap) & np.isfinite(log_det)
    if known.sum() < 8:
        return undecided("log_det: the two densities are finite together at too few samples of q.")
    return _compare_log_det(gap[known], log_det[known])


def brute_force_log_det(transform: Callable[[Any], Any], z: Any) -> Array:
    """log |det dT/dz| from the whole Jacobian.

    Raises:
      ValueError: T(z) has another number of coordinates than z.
    """
    row, unravel = ravel_pytree(z)

    def flat(row: Array) -> Array:
        return ravel_pytree(transform(unravel(row)))[0]

    jacobian = jax.jacfwd(flat)(row)
    if jacobian.shape[0] != jacobian.shape[1]:
        raise ValueError(
            "a log-determinant expects as many coordinates on both sides; the transform maps "
            f"{row.shape} to {jacobian.shape[:1]}."
        )
    return linalg.slogdet(jacobian)[1]


def _compare_log_det(gap: np.ndarray, log_det: np.ndarray) -> Outcome:
    spread = log_det.std()
    tolerance = 1e-3 * (1.0 + spread)
    if (gap - log_det).std() < tolerance:
        return Outcome()
    missing = gap.std() < tolerance
    flipped = (gap + log_det).std() < tolerance
    if missing:
        what = "is missing from log_joint"
    elif flipped:
        what = "has the wrong sign in log_joint"
    else:
        what = "is not what log_joint adds"
    message = f"the log-determinant of the transform {what}."
    remedy = (
        "log_joint(u) = log_density(T(u)) + log |det dT/du|, with a plus sign: the density "
        "of u, not of T(u)."
    )
    evidence = {"spread_of_log_det": float(spread), "spread_of_error": float((gap - log_det).std())}
    return flagged(error("log_det", message, remedy, **evidence))
