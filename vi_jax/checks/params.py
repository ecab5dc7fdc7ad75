"""The score of a guide in its parameters, whose mean is 0."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.checks.problem import Problem, wide_context, widened
from vi_jax.checks.report import Outcome, error, flagged, undecided
from vi_jax.checks.screen import confirmed
from vi_jax.types import Params

Array = jax.Array
MAX_DIRECTIONS = 16


def score(problem: Problem, *, own: bool) -> Outcome:
    """E_q[d log q(z) / d params] = 0 at fixed z, in standard errors; `own` says that q's leaves are
    the parameters.
    """
    if own:
        return undecided(
            "score: a score of mean 0, and unused parameters, need params= and q as their function."
        )
    with wide_context(problem.wide):
        floats = Floats(widened(problem.params))
        if not floats.values:
            return undecided("score: the parameters have no floating-point leaves.")
        directions = _tangents(problem.rng("tangents"), floats)
        terms = jax.jit(lambda key, directions: _score_terms(problem, floats, directions, key))
        keys = jax.random.split(problem.fold("score"))
        sets = [np.asarray(terms(key, directions), np.float64).T for key in keys]
    if not all(np.isfinite(rows).all() for rows in sets):
        message = "the derivative of log q in its parameters is NaN or infinite at samples of q."
        remedy = "Keep scales away from 0 (softplus or exp), logits finite."
        return flagged(error("nan", message, remedy, term="score"))
    wrong, largest = confirmed(*sets)
    if not wrong:
        return Outcome()
    message = (
        "E_q[d log q / d params] is not 0: log_prob is not the density of the samples, or "
        "not normalised for every parameter."
    )
    remedy = (
        "Compare sample and log_prob; look for a normaliser (log scale, log-determinant) "
        "that is missing or not differentiated."
    )
    numbers = {"standard_errors": largest, "directions": sets[0].shape[1]}
    return flagged(error("score", message, remedy, **numbers))


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
    """The derivative of log q at each sample along each direction, [T, K]."""
    z = problem.guide.sample(key, (problem.num_samples,))

    def log_q(values: list[Any]) -> Array:
        return jax.vmap(problem.make_guide(floats.whole(values)).log_prob)(z)

    return jax.vmap(lambda tangent: jax.jvp(log_q, (floats.values,), (tangent,))[1])(directions)


def _floating(leaf: Any) -> bool:
    return (
        hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and bool(jnp.size(leaf))
    )
