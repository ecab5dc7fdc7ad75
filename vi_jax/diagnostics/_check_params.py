"""Checks of the guide's parameters: a score of mean 0, and no path on which autodiff is 0 while
draws or density move.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics._check_guide import MAX_DIRECTIONS, confirmed
from vi_jax.diagnostics._check_problem import Problem, wide_context, widened
from vi_jax.diagnostics._check_report import Finding, Outcome, error, warning
from vi_jax.types import Params

Array = jax.Array
NUM_DRAWS = 256
OFF_ZERO = 5e-2
SMALL = 1e-4  # a nudge of a parameter under which no draw jumps
JUMPS = (0.1, 0.3)  # nudges under which discrete choices do


def score(problem: Problem, *, own: bool) -> Outcome:
    """E_q[d log q(z) / d params] = 0 at fixed z, in standard errors; `own` says that q's leaves are
    the parameters.
    """
    if own:
        return Outcome(
            (),
            (
                "score: a score of mean 0, and unused parameters, want params= and q as their "
                "function.",
            ),
        )
    with wide_context(problem.wide):
        floats = Floats(widened(problem.params))
        if not floats.values:
            return Outcome((), ("score: the parameters have no floating-point leaves.",))
        directions = _tangents(problem.rng("tangents"), floats)
        terms = jax.jit(lambda key, directions: _score_terms(problem, floats, directions, key))
        sets = [
            np.asarray(terms(key, directions), np.float64).T
            for key in jax.random.split(problem.fold("score"))
        ]
    if not all(np.isfinite(rows).all() for rows in sets):
        message = "the derivative of log q in its parameters is NaN or infinite at draws of q."
        return Outcome(
            (
                error(
                    "nan",
                    message,
                    "Keep scales away from 0 (softplus or exp), logits finite.",
                    term="score",
                ),
            )
        )
    wrong, largest = confirmed(*sets)
    if not wrong:
        return Outcome()
    message = (
        "E_q[d log q / d params] is not 0: log_prob is not the density of the draws, or "
        "not normalised for every parameter."
    )
    remedy = (
        "Compare sample and log_prob; look for a normaliser (log scale, log-determinant) "
        "that is missing or not differentiated."
    )
    return Outcome(
        (error("score", message, remedy, standard_errors=largest, directions=sets[0].shape[1]),)
    )


class Floats:
    """The floating-point leaves of a pytree as a list, and back."""

    def __init__(self, params: Params) -> None:
        named, self.tree = jax.tree_util.tree_flatten_with_path(params)
        self.leaves = [leaf for _, leaf in named]
        self.places = [i for i, leaf in enumerate(self.leaves) if _floating(leaf)]
        self.names = [jax.tree_util.keystr(named[i][0]) or "its leaf" for i in self.places]
        self.values = [self.leaves[i] for i in self.places]

    def whole(self, values: list[Any]) -> Params:
        """The pytree with these in the place of its floats."""
        leaves = list(self.leaves)
        for i, value in zip(self.places, values, strict=True):
            leaves[i] = value
        return jax.tree.unflatten(self.tree, leaves)


def _tangents(rng: np.random.Generator, floats: Floats) -> list[np.ndarray]:
    """Random directions, each in one leaf alone, so that no leaf drowns another: leaves [T,
    ...].
    """
    chosen = list(range(len(floats.values)))[:MAX_DIRECTIONS]
    owners = chosen * max(1, min(4, MAX_DIRECTIONS // len(chosen)))
    tangents = [np.zeros((len(owners), *leaf.shape), leaf.dtype) for leaf in floats.values]
    for row, owner in enumerate(owners):
        tangents[owner][row] = rng.standard_normal(tangents[owner][row].shape)
    return tangents


def _score_terms(problem: Problem, floats: Floats, directions: list[Any], key: Array) -> Array:
    """The derivative of log q at each draw along each direction, [T, K]."""
    z = problem.guide.sample(key, (problem.num_samples,))

    def log_q(values: list[Any]) -> Array:
        return jax.vmap(problem.make_guide(floats.whole(values)).log_prob)(z)

    return jax.vmap(lambda tangent: jax.jvp(log_q, (floats.values,), (tangent,))[1])(directions)


def detached(problem: Problem, *, own: bool) -> Outcome:
    """No entry of a parameter moves the draws, or log q at fixed draws, while its derivative is 0
    for every draw.
    """
    with wide_context(problem.wide):
        floats = Floats(widened(problem.params))
        if not floats.values:
            return Outcome(
                (),
                (
                    "detached: q is a pytree without floating-point leaves; give params= and q "
                    "as their function.",
                ),
            )
        rng = problem.rng("nudges")
        start = floats.values if own else [_nudged(leaf, rng, OFF_ZERO) for leaf in floats.values]
        paths = _paths(problem, floats, start)
        silent = {name: _silent(paths, name, start, rng) for name in paths.before}
    found = []
    notes = []
    for path, numbers in silent.items():
        if numbers:
            found.append(_detached(path, [floats.names[i] for i in numbers]))
    idle = [
        floats.names[i]
        for i in range(len(start))
        if paths.idle(i) and not any(i in numbers for numbers in silent.values())
    ]
    if idle and not own and len(silent) == 2:
        message = f"nothing that q samples or computes depends on {', '.join(idle)}."
        found.append(
            warning(
                "unused",
                message,
                "Use these parameters in the guide, or drop them.",
                parameters=", ".join(idle),
            )
        )
    if len(silent) < 2:
        notes.append(
            "detached: the draws of q are not reparameterised (has_rsample is False): take a "
            "score-function estimator."
        )
    return Outcome(tuple(found), tuple(notes))


def _detached(path: str, names: list[str]) -> Finding:
    message = (
        f"the {path} of q move with {', '.join(names)}, and the derivative there is 0: a "
        "gradient is lost in silence."
    )
    remedy = {
        "draws": "Look for stop_gradient, NumPy, or a discrete choice (of a mixture's component) "
        "in sample; write z as a smooth "
        "function of parameters and noise, or set has_rsample = False and take a score-function "
        "estimator.",
        "log densities": "Look for stop_gradient or NumPy in log_prob, or between the parameters "
        "and the guide.",
    }[path]
    return error("detached", message, remedy, path=path, parameters=", ".join(names))


class Paths(NamedTuple):
    """What gradients must pass through, as functions of the parameters, at one key: draws, and log
    q at fixed draws.
    """

    at: Callable[[list[Any]], dict[str, np.ndarray]]  # floats -> {path: [K, ...]}
    before: dict[str, np.ndarray]
    # {path: like the floats}, of a random combination: 0 only where every draw's is
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
    draws.
    """
    before = paths.before[path]
    size = before.std(0) + 1e-3 * np.abs(before).mean(0) + 1e-12

    def moved(step: float) -> np.ndarray:
        values = [
            _nudged(leaf, rng, step * mask) if i == number else leaf for i, leaf in enumerate(start)
        ]
        return (np.abs(paths.at(values)[path] - before) / size).max(1)

    small = moved(SMALL)
    if np.isfinite(small).all() and np.median(small) > 1e-2 * SMALL:
        return True
    tries = ([moved(step) for step in JUMPS] for _ in range(4 if path == "draws" else 0))
    return any(_jump(less, more) for less, more in tries)


def _jump(less: np.ndarray, more: np.ndarray) -> bool:
    """Whether a few draws move, and no less far under the smaller of two nudges: what a smooth path
    does not.
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


def _floating(leaf: Any) -> bool:
    return (
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and bool(jnp.size(leaf))
    )
