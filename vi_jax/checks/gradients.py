"""Checks of the gradient of log_joint and of log q in z: against differences in float64, and
float32 against float64.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.checks.problem import (
    Problem,
    Space,
    densities,
    over_rows,
    take_rows,
    wide_context,
    widened,
    with_gradients,
    x64_is_on,
)
from vi_jax.checks.report import Finding, Outcome, error, undecided, warning
from vi_jax.checks.trace import first_bad

Array = jax.Array
NUM_DRAWS = 64
STEPS = (1e-1, 1e-2, 1e-3, 1e-5)  # in standard deviations of q
FAR_SDS = 5.0  # standard deviations: one coordinate of one sample in two million is that far out
_EPS32 = float(np.finfo(np.float32).eps)


def differences(problem: Problem) -> Outcome:
    """The gradient by autodiff is the slope by central differences, both in float64, along random
    directions at samples of q.
    """
    if problem.space is None or not problem.wide:
        return undecided(
            "gradient: needs continuous latents with a bijection to the reals, and float64."
        )
    with wide_context():
        u = problem.draws[:NUM_DRAWS]
        v, axes = _directions(problem.rng("directions"), u.shape)
        results = over_rows(
            _slopes(problem, problem.space), (u, problem.scale * v), widened(problem.batch)
        )
    found = []
    for name, slope, by_step, size in zip(
        densities(problem), *(np.moveaxis(array, 1, 0) for array in results), strict=True
    ):
        wrong = _wrong(slope, by_step, size)
        dead = [int(axis) for axis in np.unique(axes[axes >= 0]) if wrong[axes == axis].all()]
        if wrong[axes < 0].mean() > 0.25 or dead:
            found.append(_wrong_gradient(name, slope, by_step, wrong, dead))
    return Outcome(tuple(found))


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Directions [K, D] in standard deviations of q, random ones and single axes by turns, and the
    axis of each (-1: random).
    """
    v = rng.standard_normal(shape)
    axes = np.full(shape[0], -1)
    chosen = rng.permutation(shape[1])[: shape[0] // 4]
    axes[1::2] = np.resize(chosen, shape[0] // 2)
    v[1::2] = 0.0
    v[np.arange(shape[0])[1::2], axes[1::2]] = 1.0
    return v, axes


def _slopes(problem: Problem, space: Space) -> Callable[[Any, Any], tuple[Array, Array, Array]]:
    """(u, v), batch -> slopes along v of both densities, by autodiff [2] and by each step [2, S],
    and their sizes [2].
    """
    both = densities(problem).values()

    def at(row: tuple[Array, Array], batch: Any) -> tuple[Array, Array, Array]:
        u, v = row

        def f(t: Array) -> Array:
            return jnp.stack([term(space.to_z(u + t * v), batch) for term in both])

        steps = jnp.asarray(STEPS)
        up = jax.vmap(f, out_axes=1)(steps)
        down = jax.vmap(f, out_axes=1)(-steps)
        value, pull_back = jax.vjp(f, jnp.zeros(()))
        slope = jax.vmap(pull_back)(jnp.eye(2))[0]
        return slope, (up - down) / (2.0 * steps), jnp.abs(value)

    return at


def _wrong(slope: np.ndarray, by_step: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The samples [K] at which differences settle, as their step falls, on another slope than
    autodiff's, by 5 per cent.

    Rounding as in float32 (a cast inside) is allowed for. A slope of 0 that only large steps deny
    is that of a step function.
    """
    rounding = 20.0 * _EPS32 * (1.0 + size[:, None]) / np.asarray(STEPS)
    off = np.abs(by_step - slope[:, None])
    differ = (off > 0.05 * np.maximum(np.abs(by_step), np.abs(slope[:, None])) + rounding).all(1)
    settled = (
        np.abs(by_step[:, -1] - by_step[:, -2]) <= 0.05 * np.abs(by_step[:, -1]) + rounding[:, -2]
    )
    stepped = (slope == 0) & (np.abs(by_step[:, 0]) > rounding[:, 0])
    known = np.isfinite(slope) & np.isfinite(by_step).all(1)
    return ((differ & settled) | stepped) & known


def _wrong_gradient(
    name: str, slope: np.ndarray, by_step: np.ndarray, wrong: np.ndarray, axes: list[int]
) -> Finding:
    worst = int(np.argmax(np.where(wrong, np.abs(by_step[:, 2] - slope), -1.0)))
    what = "is 0" if (slope[wrong] == 0).all() else "is not its slope"
    what += f" along unconstrained coordinate(s) {axes}" if axes else ""
    message = (
        f"the gradient of {name} in z by autodiff {what}: central differences in float64 "
        "say otherwise."
    )
    remedy = (
        "Look for stop_gradient, argmax, rounding or a cast to integers on the path from z, a "
        "custom derivative rule that is "
        "wrong, or a jump in the density."
    )
    numbers = {
        "autodiff": slope[worst],
        "differences": by_step[worst, 2],
        "share_of_draws": wrong.mean(),
    }
    return error("gradient", message, remedy, term=name, **numbers)


def float32(problem: Problem) -> Outcome:
    """Value and gradient in float32 are those in float64 at the same z: at samples of q, and with
    one coordinate far out.
    """
    if problem.space is None or not problem.wide or x64_is_on():
        return undecided(
            "float32: needs continuous latents, functions that also run in float64, and x64 "
            "off at the call."
        )
    near = problem.draws[:NUM_DRAWS]
    far = _with_one_far(problem)
    with wide_context():
        z = jax.tree.map(
            _to_float32, jax.jit(jax.vmap(problem.space.to_z))(np.concatenate([near, far]))
        )
    narrow = _both_densities(problem, z, False)
    wide = _both_densities(problem, z, True)
    found = [_cliff(problem, name, z, narrow[name], wide[name]) for name in narrow]
    return Outcome(tuple(finding for finding in found if finding is not None))


def _with_one_far(problem: Problem) -> np.ndarray:
    """Samples with one coordinate each at FAR_SDS standard deviations, on a side of its own."""
    u = problem.draws[:NUM_DRAWS].copy()
    rng = problem.rng("far")
    axis = rng.integers(0, u.shape[1], len(u))
    side = rng.choice([-1.0, 1.0], len(u))
    u[np.arange(len(u)), axis] = problem.mean[axis] + FAR_SDS * side * problem.scale[axis]
    return u


def _to_float32(leaf: Array) -> np.ndarray:
    return np.asarray(leaf).astype(np.float32)


def _both_densities(
    problem: Problem, z: Any, wide: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Value [K] and gradient [K, D] of each density at float32 z, in one precision."""
    with wide_context(wide):
        return over_rows(with_gradients(problem), widened(z), widened(problem.batch))


def _cliff(problem: Problem, name: str, z: Any, narrow: Any, wide: Any) -> Finding | None:
    """What float32 gets wrong at samples; else far out; else None."""
    bad, off = _float32_errors(narrow, wide)
    for spot, rows, kind in (
        ("at samples of q", slice(0, NUM_DRAWS), error),
        (_FAR_OUT, slice(NUM_DRAWS, None), warning),
    ):
        if bad[rows].mean() > 0.05 or not np.isfinite(off[rows]).all():
            row = take_rows(
                take_rows(z, rows), int(np.argmax(np.where(bad[rows], off[rows], -1.0)))
            )
            return _cliff_finding(
                problem, name, row, spot, kind, share=bad[rows].mean(), worst=off[rows].max()
            )
    return None


_FAR_OUT = f"{FAR_SDS:g} standard deviations of q out"


def _cliff_finding(
    problem: Problem,
    name: str,
    z: Any,
    spot: str,
    kind: Callable[..., Finding],
    share: Any,
    worst: Any,
) -> Finding:
    with wide_context(False):
        at = lambda z, batch: with_gradients(problem)(z, batch)[name]  # noqa: E731
        infinite = first_bad(at, (z, problem.batch), lambda x: ~jnp.isfinite(x))
    where = (
        f"first value that is not finite: {infinite}"
        if infinite
        else "no single equation overflows: digits cancel"
    )
    message = (
        f"float32 gets {name} or its gradient wrong {spot}, where float64 has it right ({where})."
    )
    remedy = (
        "Use the stable form there (log_sigmoid, logsumexp, expm1, by logits, by log-scales), "
        "centre and scale the data, or run "
        "with jax_enable_x64."
    )
    return kind("float32", message, remedy, term=name, share=share, worst_relative_error=worst)


def _float32_errors(narrow: Any, wide: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are wrong in float32, and by how much relative to the larger of that row's norm
    and the median norm.
    """
    (value, gradient) = narrow
    (value64, gradient64) = wide
    known = np.isfinite(value64) & np.isfinite(gradient64).all(1)
    norm = np.linalg.norm(np.where(known[:, None], gradient64, 0.0), axis=1)
    off = np.linalg.norm(gradient - gradient64, axis=1) / (
        np.maximum(norm, np.median(norm)) + 1e-30
    )
    off_value = np.abs(value - value64) / (10.0 + np.abs(value64))
    finite = np.isfinite(value) & np.isfinite(gradient).all(1)
    off = np.where(finite, np.maximum(off, off_value), np.inf)
    return known & (~finite | (off > 0.05)), np.where(known, off, 0.0)
