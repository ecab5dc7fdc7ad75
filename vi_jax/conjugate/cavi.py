"""Coordinate ascent variational inference (CAVI): sweeps of closed-form updates."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.conjugate.engine import Model, Naturals, entropy, expected, inner, log_joint
from vi_jax.types import Array


class State(NamedTuple):
    """Factors after some sweeps."""

    natural: Naturals
    elbo: Array  # nats, with the local factors that the last update saw: no more than `engine.elbo`
    num_sweeps: Array  # int32


class Fit(NamedTuple):
    """A fitted model."""

    model: Model
    natural: Naturals  # of the start of highest ELBO
    elbo: Array  # nats
    history: Array  # ELBO of each sweep, [num_sweeps]; nan after the last
    converged: Array  # bool: the ELBO stopped rising
    starts: Array  # ELBO of each start, [R]


def init(natural: Naturals) -> State:
    """Before the first sweep."""
    natural = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), natural)
    return State(natural, jnp.full((), -jnp.inf, jnp.result_type(float)), jnp.int32(0))


def step(model: Model, x: Any, state: State) -> State:
    """One sweep over the factors (Blei et al. 2017, alg. 1).

    Args:
      model: see `engine.Model`.
      x: all data, a pytree [N, ...].
      state: the factors.
    """
    natural = state.natural
    means = expected(model, state.natural)
    value = state.elbo
    for names in model.sweep:
        kept = {name: means[name] for name in means if name not in names}
        moving = {name: means[name] for name in names}
        value, gradient = jax.value_and_grad(
            lambda moving, kept=kept: log_joint(model, kept | moving, x)
        )(moving)
        natural = natural | gradient
        moved = {
            name: jax.grad(log_normalizer)(natural[name])
            for name, log_normalizer in model.factors
            if name in names
        }
        # linear while the local factors stand: no second pass over the data
        value = value + inner(gradient, jax.tree.map(jnp.subtract, moved, moving))
        means = kept | moved
    return State(natural, value + entropy(model, natural, means), state.num_sweeps + 1)


def run(
    model: Model, x: Any, start: Naturals, *, num_sweeps: int = 500, tolerance: float = 1e-6
) -> tuple[State, Array, Array]:
    """Sweeps until the ELBO rises by less than `tolerance` of itself: the state, the ELBO of each
    sweep (nan after the last), and whether that was reached. Lives under `jax.jit` and `jax.vmap`.
    """
    first = init(start)
    history = jnp.full(num_sweeps, jnp.nan, first.elbo.dtype)

    def unfinished(carry: tuple[State, Array, Array]) -> Array:
        state, _, converged = carry
        return (state.num_sweeps < num_sweeps) & ~converged

    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, history, _ = carry
        new = step(model, x, state)
        converged = new.elbo - state.elbo < tolerance * jnp.maximum(1.0, jnp.abs(new.elbo))
        return new, history.at[state.num_sweeps].set(new.elbo), converged

    return jax.lax.while_loop(unfinished, body, (first, history, jnp.bool_(False)))


def fit(
    model: Model, x: Any, starts: Naturals, *, num_sweeps: int = 500, tolerance: float = 1e-6
) -> Fit:
    """Coordinate ascent from R starts at once, compiled; the one of highest ELBO is kept.

    Args:
      model: see `engine.Model`.
      x: all data, a pytree [N, ...].
      starts: natural parameters, every leaf [R, ...].
      num_sweeps: at most.
      tolerance: of the relative rise of the ELBO at which to stop.
    """
    state, history, converged, elbos = _fit(model, x, starts, num_sweeps, tolerance)
    return Fit(model, state.natural, state.elbo, history, converged, elbos)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _fit(
    model: Model, x: Any, starts: Naturals, num_sweeps: int, tolerance: float
) -> tuple[State, Array, Array, Array]:
    def one(start: Naturals) -> tuple[State, Array, Array]:
        return run(model, x, start, num_sweeps=num_sweeps, tolerance=tolerance)

    fits = jax.vmap(one)(starts)
    elbos = fits[0].elbo
    best = jnp.argmax(jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf))
    return *jax.tree.map(lambda leaf: leaf[best], fits), elbos
