"""What the runs ended at: the guide, its weighed draws, and what is no answer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import Weighed, weigh
from vi_jax.fitting._stack import Stack, component_log_prob, stack_weights
from vi_jax.targets.target import Target, TargetError
from vi_jax.types import Array, Method

HIGH = 1e10  # nats that the largest value of a density with a maximum stays below
FAR = 1e8  # unconstrained coordinates beyond it: the density has no maximum, or no scale
ELBO_DRAWS, PLACE_DRAWS = 100, 400  # of each start, where there are several: for its ELBO, and where it is


class Starts(NamedTuple):
    """What R starts came to."""

    elbo: Array  # [R], nats; -inf where it is not finite
    distance: Array  # [R], the farthest that a coordinate's mean lies from the best start's, in standard deviations of that one's
    weight: Array  # [R], in the answer


def judge(target: Target, method: Method, combine: str, num_draws: int, key: Array, states: Any) -> tuple[Any, Weighed, Starts]:
    """The guide of the best of R states or of all together, S weighed draws of it, and what the starts came to."""
    num_starts = len(jax.tree.leaves(states)[0])
    key_elbo, key_draws = jax.random.split(key)
    if num_starts == 1:
        q = method.guide(jax.tree.map(lambda leaf: leaf[0], states))
        weighed = weigh(key_draws, target.log_density, q, num_draws=num_draws)
        return q, weighed, Starts(weighed.elbo[None], jnp.zeros(1), jnp.ones(1))
    num_each = max(ELBO_DRAWS, num_draws // num_starts) if combine == "stack" else ELBO_DRAWS
    key_each, key_place = jax.random.split(key_elbo)
    keys = jax.random.split(key_each, num_starts)
    u, log_p, log_q = jax.vmap(lambda key, state: _drawn(key, target, method.guide(state), num_each))(keys, states)
    elbo = jnp.mean(log_p - log_q, axis=1)
    elbo = jnp.where(jnp.isfinite(elbo), elbo, -jnp.inf)
    best = jnp.argmax(elbo)
    weight = jnp.zeros(num_starts).at[best].set(1.0)
    q = method.guide(jax.tree.map(lambda leaf: leaf[best], states))
    distance = _distances(key_place, method, states, best)
    if combine == "stack":
        q, weight = _stacked(method, states, best, u, log_p, log_q)
    return q, weigh(key_draws, target.log_density, q, num_draws=num_draws), Starts(elbo, distance, weight)


def _drawn(key: Array, target: Target, q: Any, num_draws: int) -> tuple[Array, Array, Array]:
    u = q.sample(key, (num_draws,))
    return u, jax.lax.map(target.log_density, u, batch_size=25), jax.vmap(q.log_prob)(u)


def _stacked(method: Method, states: Any, best: Array, u: Array, log_p: Array, log_q: Array) -> tuple[Stack, Array]:
    """The mixture of R guides and its weights [R], of draws [R, N, D] and their log densities [R, N].

    A start whose draws or densities are not finite weighs nothing, and the best's state stands in its place.
    """
    num_starts, size = len(u), u.shape[-1]
    good = jnp.all(jnp.isfinite(u), axis=(1, 2)) & jnp.all(jnp.isfinite(log_q), axis=1)
    rows = jnp.where(good, jnp.arange(num_starts), best)
    states, u = jax.tree.map(lambda leaf: leaf[rows], (states, u))
    log_p = jnp.where(good[:, None] & ~jnp.isnan(log_p), log_p, -jnp.inf)
    log_q = component_log_prob(method.guide, states, u.reshape(-1, size))  # [R, R N]
    log_w = stack_weights(log_p.reshape(-1), jnp.where(good[:, None], log_q, -jnp.inf))
    return Stack(log_w, states, method.guide), jnp.exp(log_w)


def _distances(key: Array, method: Method, states: Any, best: Array) -> Array:
    """[R]: how far means lie from the best start's, by the same draws for all, so that guides which are alike are at 0."""

    def place(state: Any) -> tuple[Array, Array]:
        u = method.guide(state).sample(jax.random.clone(key), (PLACE_DRAWS,))
        return u.mean(0), u.std(0)

    mean, sd = jax.lax.map(place, states)
    return jnp.max(jnp.abs(mean - mean[best]) / sd[best], axis=1)


def check(target: Target, q: Any, history: dict[str, np.ndarray], weighed: Weighed) -> None:
    """Raises where there is no answer."""
    values, u = history["value"], np.asarray(weighed.u)
    if not np.all(np.isfinite(u)):
        first = int(np.argmax(~np.isfinite(values))) if not np.all(np.isfinite(values)) else len(values)
        bad = [name for name, column in zip(target.names, u.T, strict=True) if not np.all(np.isfinite(column))]
        raise FloatingPointError(f"the guide is not finite, in {', '.join(bad[:5])}; the first such value was at step {first}.")
    if len(values) and not np.any(np.isfinite(values)):
        site = target.explain(jnp.asarray(u[0])) if target.explain else ""
        raise FloatingPointError(f"the log density was not finite at any draw of step 0 and after{f': {site}' if site else ''}.")
    far = np.median(np.abs(u), axis=0)
    high = np.max(values, initial=-np.inf, where=np.isfinite(values))
    if far.max() > FAR or high > HIGH:
        raise TargetError(
            f"the log density seems unbounded above: {target.names[int(far.argmax())]} went to {u[0, int(far.argmax())]:.1e} "
            f"(unconstrained), the value to {high:.1e} nats. Give it a proper prior."
        )
