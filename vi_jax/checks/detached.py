"""Detached parameters: paths on which autodiff is 0 while samples or log densities move."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.checks.params import Floats
from vi_jax.checks.problem import Problem, wide_context, widened
from vi_jax.checks.report import Finding, Outcome, error, undecided, warning

Array = jax.Array
NUM_DRAWS = 256
OFF_ZERO = 5e-2
SMALL_NUDGE = 1e-4  # a nudge of a parameter under which no sample jumps
JUMP_NUDGES = (0.1, 0.3)  # nudges under which discrete choices do


def detached(problem: Problem, *, own: bool) -> Outcome:
    """No entry of a parameter moves the samples, or log q at fixed samples, while its derivative is
    0 for every sample.
    """
    with wide_context(problem.wide):
        floats = Floats(widened(problem.params))
        if not floats.values:
            return undecided(
                "detached: q is a pytree without floating-point leaves; give params= and q as "
                "their function."
            )
        rng = problem.rng("nudges")
        start = floats.values if own else [_nudged(leaf, rng, OFF_ZERO) for leaf in floats.values]
        paths = _paths(problem, floats, start)
        silent = {name: _silent(paths, name, start, rng) for name in paths.before}
    found = [
        _detached(path, [floats.names[i] for i in numbers])
        for path, numbers in silent.items()
        if numbers
    ]
    if len(silent) < 2:
        note = (
            "detached: the samples of q are not reparameterised (has_rsample is False): take a "
            "score-function estimator."
        )
        return Outcome(tuple(found), (note,))
    if not own:
        found += _unused(floats, paths, silent)
    return Outcome(tuple(found))


def _unused(floats: Floats, paths: "Paths", silent: dict[str, list[int]]) -> list[Finding]:
    """Parameters in which no path has a derivative, and which move none either."""
    moving = {number for numbers in silent.values() for number in numbers}
    idle = [
        name
        for number, name in enumerate(floats.names)
        if paths.idle(number) and number not in moving
    ]
    if not idle:
        return []
    message = f"nothing that q samples or computes depends on {', '.join(idle)}."
    remedy = "Use these parameters in the guide, or drop them."
    return [warning("unused", message, remedy, parameters=", ".join(idle))]


def _detached(path: str, names: list[str]) -> Finding:
    message = (
        f"the {path} of q move with {', '.join(names)}, and the derivative there is 0: a "
        "gradient is lost without an error."
    )
    remedy = {
        "draws": "Look for stop_gradient, NumPy, or a discrete choice (of a mixture's component) "
        "in sample; write z as a smooth function of parameters and noise, or set has_rsample = "
        "False and take a score-function estimator.",
        "log densities": "Look for stop_gradient or NumPy in log_prob, or between the parameters "
        "and the guide.",
    }[path]
    return error("detached", message, remedy, path=path, parameters=", ".join(names))


class Paths(NamedTuple):
    """What gradients must pass through, as functions of the parameters, at one key: samples, and
    log q at fixed samples.
    """

    at: Callable[[list[Any]], dict[str, np.ndarray]]  # floats -> {path: [K, ...]}
    before: dict[str, np.ndarray]
    # {path: like the floats}, of a random combination: 0 only where every sample's is
    slopes: dict[str, list[np.ndarray]]

    def idle(self, number: int) -> bool:
        """Whether no path has a derivative in a leaf."""
        return all((slopes[number] == 0).all() for slopes in self.slopes.values())


def _paths(problem: Problem, floats: Floats, start: list[Any]) -> Paths:
    key = problem.fold("detached")
    smooth = not problem.discrete and getattr(problem.guide, "has_rsample", True)

    def both(values: list[Any], z: Any) -> tuple[dict[str, Array], Any]:
        q = problem.make_guide(floats.whole(values))
        draws = q.sample(key, (NUM_DRAWS,))
        rows = {"log densities": jax.vmap(q.log_prob)(z)[:, None]}
        if smooth:
            rows["draws"] = jnp.concatenate(
                [leaf.reshape(NUM_DRAWS, -1) for leaf in jax.tree.leaves(draws)], axis=1
            )
        return rows, draws

    compiled = jax.jit(both)
    shapes = jax.eval_shape(lambda: problem.guide.sample(key, (NUM_DRAWS,)))
    z = compiled(start, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))[1]
    before = jax.tree.map(np.asarray, compiled(start, z)[0])
    rng = problem.rng("weights")
    weights = {
        name: rng.standard_normal(rows.shape).astype(rows.dtype) for name, rows in before.items()
    }

    def slopes(values: list[Any]) -> dict[str, list[Array]]:
        rows, pull_back = jax.vjp(lambda values: both(values, z)[0], values)
        nothing = {name: jnp.zeros_like(row) for name, row in rows.items()}
        return {name: pull_back({**nothing, name: jnp.asarray(weights[name])})[0] for name in rows}

    return Paths(
        lambda values: jax.tree.map(np.asarray, compiled(values, z)[0]),
        before,
        jax.tree.map(np.asarray, jax.jit(slopes)(start)),
    )


def _silent(paths: Paths, path: str, start: list[Any], rng: np.random.Generator) -> list[int]:
    """The leaves of which some entries move a path though its derivative in them is 0."""
    masks = [slope == 0 for slope in paths.slopes[path]]
    return [
        number
        for number, mask in enumerate(masks)
        if mask.any() and _moves(paths, path, start, number, mask, rng)
    ]


def _moves(
    paths: Paths,
    path: str,
    start: list[Any],
    number: int,
    mask: np.ndarray,
    rng: np.random.Generator,
) -> bool:
    """Whether nudging the masked entries of one leaf moves the path: smoothly, or by jumps of some
    samples.
    """
    before = paths.before[path]
    size = before.std(0) + 1e-3 * np.abs(before).mean(0) + 1e-12

    def moved(step: float) -> np.ndarray:
        values = [
            _nudged(leaf, rng, step * mask) if i == number else leaf for i, leaf in enumerate(start)
        ]
        return (np.abs(paths.at(values)[path] - before) / size).max(1)

    small = moved(SMALL_NUDGE)
    if np.isfinite(small).all() and np.median(small) > 1e-2 * SMALL_NUDGE:
        return True
    if path != "draws":
        return False
    tries = ([moved(step) for step in JUMP_NUDGES] for _ in range(4))
    return any(_jump(less, more) for less, more in tries)


def _jump(less: np.ndarray, more: np.ndarray) -> bool:
    """Whether a few samples move, and no less far under the smaller of two nudges: what a smooth
    path does not.
    """
    if not (np.isfinite(less).all() and np.isfinite(more).all()):
        return False
    far_less = less[less > 0.1]
    far_more = more[more > 0.1]
    few = 3 <= far_less.size < 0.5 * less.size and far_more.size < 0.7 * more.size
    return bool(few and np.median(far_less) > 0.6 * np.median(far_more))


def _nudged(leaf: Any, rng: np.random.Generator, step: Any) -> np.ndarray:
    """A leaf, each entry moved by about `step` (a number, or one each) of its size or of 1."""
    value = np.asarray(leaf)
    noise = rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
    return np.asarray(value + step * noise * np.maximum(np.abs(value), 1.0), value.dtype)
