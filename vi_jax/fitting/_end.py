"""Selects or stacks the final guides, importance-weights their samples, and raises if a run gave no
valid answer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import CHUNK, WeightedSamples, weight_samples
from vi_jax.fitting._stack import Stack, component_log_prob, stack_weights
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import Array, Method

MAX_VALUE = 1e10  # nats that the largest value of a density with a maximum stays below
MAX_COORDINATE = 1e8  # unconstrained coordinates beyond it: the density has no maximum, or no scale
MAX_RAYS = 16  # samples along which the log density is followed outwards, at most
SAMPLES_PER_RAY = 80  # one ray for so many samples
RAY_LENGTHS = (30.0, 1e3, 3e4)  # in units of the sample's distance from the middle
MAX_RISE = 20.0  # nats over all samples: what rises by more out there has no maximum
ELBO_DRAWS = 100  # of each start, where there are several, for its ELBO
LOCATION_DRAWS = 400  # of each start, where there are several, for its location


class Starts(NamedTuple):
    """The results of R starts."""

    elbo: Array  # [R], nats; -inf where it is not finite
    # [R], the farthest that a coordinate's mean lies from the best start's, in standard deviations
    # of that one's
    distance: Array
    weight: Array  # [R], in the answer
    # locations [P, D] along the path of the only start, and the ELBO there; None of several
    seen: tuple[Array, Array] | None


class Beyond(NamedTuple):
    """Points far out from the guide, along some of its samples."""

    u: Array  # [3, M, D], ever farther
    values: Array  # [3, M], log densities
    highest: Array  # that of the samples


def judge(
    target: Target, method: Method, combine: str, num_draws: int, key: Array, states: Any
) -> tuple[Any, Any, WeightedSamples, Starts, Beyond]:
    """The guide of the best of R states or of all together, the best state, S importance-weighted
    samples of the guide, the results of the starts, and points far out.
    """
    num_starts = len(jax.tree.leaves(states)[0])
    key_elbo, key_draws = jax.random.split(key)
    if num_starts == 1:
        state = jax.tree.map(lambda leaf: leaf[0], states)
        q = method.guide(state)
        weighted, beyond = _weighted(key_draws, target, q, num_draws)
        seen = None if method.seen is None else method.seen(state)
        starts = Starts(weighted.elbo[None], jnp.zeros(1), jnp.ones(1), seen)
        return q, state, weighted, starts, beyond
    num_each = max(ELBO_DRAWS, num_draws // num_starts) if combine == "stack" else ELBO_DRAWS
    key_each, key_place = jax.random.split(key_elbo)
    keys = jax.random.split(key_each, num_starts)
    u, log_p, log_q = jax.vmap(
        lambda key, state: _drawn(key, target, method.guide(state), num_each)
    )(keys, states)
    elbo = jnp.mean(log_p - log_q, axis=1)
    elbo = jnp.where(jnp.isfinite(elbo), elbo, -jnp.inf)
    best = jnp.argmax(elbo)
    weight = jnp.zeros(num_starts).at[best].set(1.0)
    state = jax.tree.map(lambda leaf: leaf[best], states)
    q = method.guide(state)
    distance = _distances(key_place, method, states, best)
    if combine == "stack":
        q, weight = _stacked(method, states, best, u, log_p, log_q)
    weighted, beyond = _weighted(key_draws, target, q, num_draws)
    return q, state, weighted, Starts(elbo, distance, weight, None), beyond


def _weighted(key: Array, target: Target, q: Any, num_draws: int) -> tuple[WeightedSamples, Beyond]:
    """As `diagnostics.posterior.importance_sample`, with the points beyond in the same pass."""
    u = q.sample(key, (num_draws,))
    middle = u.mean(0)
    few = u[: min(MAX_RAYS, 1 + num_draws // SAMPLES_PER_RAY)]
    far = middle + jnp.asarray(RAY_LENGTHS, u.dtype)[:, None, None] * (few - middle)
    values = jax.lax.map(
        target.log_density,
        jnp.concatenate([u, far.reshape(-1, u.shape[1])]),
        batch_size=min(CHUNK, num_draws),
    )
    log_p = values[:num_draws]
    highest = jnp.max(jnp.where(jnp.isnan(log_p), -jnp.inf, log_p))
    return weight_samples(u, log_p, q), Beyond(
        far, values[num_draws:].reshape(len(RAY_LENGTHS), -1), highest
    )


def _drawn(key: Array, target: Target, q: Any, num_draws: int) -> tuple[Array, Array, Array]:
    u = q.sample(key, (num_draws,))
    return u, jax.lax.map(target.log_density, u, batch_size=25), jax.vmap(q.log_prob)(u)


def _stacked(
    method: Method, states: Any, best: Array, u: Array, log_p: Array, log_q: Array
) -> tuple[Stack, Array]:
    """The mixture of R guides and its weights [R], of samples [R, N, D] and their log densities [R,
    N].

    A start whose samples or densities are not finite weighs nothing, and the best's state is used
    instead.
    """
    num_starts = len(u)
    size = u.shape[-1]
    good = jnp.all(jnp.isfinite(u), axis=(1, 2)) & jnp.all(jnp.isfinite(log_q), axis=1)
    rows = jnp.where(good, jnp.arange(num_starts), best)
    states, u = jax.tree.map(lambda leaf: leaf[rows], (states, u))
    log_p = jnp.where(good[:, None] & ~jnp.isnan(log_p), log_p, -jnp.inf)
    log_q = component_log_prob(method.guide, states, u.reshape(-1, size))  # [R, R N]
    log_w = stack_weights(log_p.reshape(-1), jnp.where(good[:, None], log_q, -jnp.inf))
    return Stack(log_w, jax.lax.map(method.guide, states)), jnp.exp(log_w)


def _distances(key: Array, method: Method, states: Any, best: Array) -> Array:
    """[R]: how far means lie from the best start's, by the same samples for all, so that guides
    which are alike are at 0.
    """

    def location(state: Any) -> tuple[Array, Array]:
        u = method.guide(state).sample(jax.random.clone(key), (LOCATION_DRAWS,))
        return u.mean(0), u.std(0)

    mean, sd = jax.lax.map(location, states)
    return jnp.max(jnp.abs(mean - mean[best]) / sd[best], axis=1)


def check(
    target: Target, history: dict[str, np.ndarray], weighted: WeightedSamples, beyond: Beyond
) -> None:
    """Raises where there is no answer."""
    values = history["value"]
    u = np.asarray(weighted.u)
    _require_maximum(target, beyond)
    if not np.all(np.isfinite(u)):
        wrong = np.flatnonzero(~np.isfinite(values))
        first = int(wrong[0]) if len(wrong) else len(values)
        bad = [
            name
            for name, column in zip(target.names, u.T, strict=True)
            if not np.all(np.isfinite(column))
        ]
        raise FloatingPointError(
            f"the guide is not finite, in {', '.join(bad[:5])}; the first such value was at step "
            f"{first}. The log density may be unbounded above or flat (give a proper prior), or "
            "not finite at some points (see vi.check, which names the line)."
        )
    if len(values) and not np.any(np.isfinite(values)):
        site = target.explain(jnp.asarray(u[0])) if target.explain else ""
        raise FloatingPointError(
            "no step had a finite value: some of the samples of each fell where the log density "
            "is not finite"
            f"{f' ({site})' if site else ''}. A density with an edge needs a constraint, so that "
            "the edge is at infinity; nan, see "
            "vi.check, which names the line."
        )
    far = np.median(np.abs(u), axis=0)
    high = np.max(values, initial=-np.inf, where=np.isfinite(values))
    if far.max() > MAX_COORDINATE or high > MAX_VALUE:
        raise TargetError(
            f"the log density seems unbounded above: {target.names[int(far.argmax())]} went to "
            f"{u[0, int(far.argmax())]:.1e} "
            f"(unconstrained), the value to {high:.1e} nats. Give it a proper prior."
        )


def _require_maximum(target: Target, beyond: Beyond) -> None:
    """Raises where the log density only rises on the way out."""
    values = np.asarray(beyond.values, np.float64)
    u = np.asarray(beyond.u)
    with np.errstate(invalid="ignore"):
        rises = (
            (values[0] < values[1])
            & (values[1] < values[2])
            & (values[2] > float(beyond.highest) + MAX_RISE)
        )
    if np.any(rises):
        which = int(np.argmax(np.where(rises, values[2], -np.inf)))
        name = int(np.argmax(np.abs(u[2, which])))
        raise TargetError(
            "the log density seems unbounded above: far from the guide it still rises, to "
            f"{values[2, which]:.1e} nats where "
            f"{target.names[name]} is {u[2, which, name]:.1e} (unconstrained). Give it a proper "
            "prior."
        )
