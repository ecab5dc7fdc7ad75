"""A method's steps from all starts, in one compiled loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.targets.target import Target
from vi_jax.types import Array, Method, MethodInfo


class Loop(NamedTuple):
    """R runs side by side; one that is done stands still until all are."""

    states: Any  # the method's own, [R, ...]
    values: Array  # [R, num_steps], nan where there was no step
    evaluations: Array  # [R, num_steps]
    done: Array  # [R]
    steps: Array  # [R], steps taken
    step: Array


def begin(target: Target, method: Method, key: Array, u: Array) -> Loop:
    """The method's states at the starts u [R, D]."""
    num_starts = len(u)
    density_at = densities(target, method)
    if target.sampled_larger is not None and method.stochastic:
        density_at = target.sampled_larger

    def one(key: Array, u: Array) -> Any:
        key_rows, key_method = jax.random.split(key)
        return method.init(key_method, density_at(key_rows), u)

    states = over_starts(num_starts)(one, jax.random.split(key, num_starts), u)
    empty = jnp.full((num_starts, method.num_steps), jnp.nan, u.dtype)
    zeros = jnp.zeros((num_starts, method.num_steps), jnp.int32)
    return Loop(
        states,
        empty,
        zeros,
        jnp.zeros(num_starts, bool),
        jnp.zeros(num_starts, jnp.int32),
        jnp.int32(0),
    )


def advance(
    target: Target,
    method: Method,
    key: Array,
    loop: Loop,
    last: Array,
    *,
    spread: Callable[[Any], Any] = lambda tree: tree,
) -> Loop:
    """Steps until all runs are done, or up to the step `last`; a step's key is a function of its
    number and its start's.

    `spread` lays the states [R, ...] over devices (`vi_jax.shard.Layout`).
    """
    num_starts = len(loop.done)
    density_at = densities(target, method)
    each = over_starts(num_starts)

    def one(which: Array, state: Any, done: Array, number: Array) -> tuple[Any, MethodInfo]:
        key_step, key_rows = jax.random.split(
            jax.random.fold_in(jax.random.fold_in(key, which), number)
        )
        new, info = method.step(key_step, density_at(key_rows), state)
        return jax.tree.map(lambda a, b: jnp.where(done, b, a), new, state), info

    def step(loop: Loop) -> Loop:
        states, info = each(
            lambda r, state, done: one(r, state, done, loop.step),
            jnp.arange(num_starts),
            loop.states,
            loop.done,
        )
        value = jnp.where(loop.done, jnp.nan, info.value).astype(loop.values.dtype)
        return Loop(
            spread(states),
            loop.values.at[:, loop.step].set(value),
            loop.evaluations.at[:, loop.step].set(info.evaluations),
            loop.done | info.done,
            jnp.where(loop.done, loop.steps, loop.step + 1),
            loop.step + 1,
        )

    return jax.lax.while_loop(lambda loop: (loop.step < last) & ~jnp.all(loop.done), step, loop)


def over_starts(num_starts: int) -> Callable[..., Any]:
    """vmap over the leading axis R; one start goes without, for a smaller program."""

    def alone(f: Callable[..., Any], *args: Any) -> Any:
        out = f(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], out)

    return alone if num_starts == 1 else lambda f, *args: jax.vmap(f)(*args)


def densities(target: Target, method: Method) -> Callable[[Array], Any]:
    """key -> the log density of a step: on a minibatch where the target has them and the method
    takes them.
    """
    if target.sampled is not None and method.stochastic:
        return target.sampled
    return lambda key: target.log_density


def history(loop: Loop, which: int) -> dict[str, np.ndarray]:
    """Value and evaluations of each step of one run."""
    steps = int(loop.steps[which])
    return {
        "value": np.asarray(loop.values)[which, :steps],
        "evaluations": np.asarray(loop.evaluations)[which, :steps],
    }


def evaluations(loop: Loop) -> int:
    """Gradients of the log density, those of all runs together."""
    last = np.maximum(np.asarray(loop.steps) - 1, 0)
    return int(np.asarray(loop.evaluations)[np.arange(len(last)), last].sum())
