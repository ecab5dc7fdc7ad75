"""Stochastic variational inference: natural-gradient steps on minibatches."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.conjugate.engine import Model, Naturals, optimum
from vi_jax.types import Array


class State(NamedTuple):
    """Factors after some steps."""

    natural: Naturals
    num_steps: Array  # int32


def init(natural: Naturals) -> State:
    """Before the first step."""
    return State(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), natural), jnp.int32(0)
    )


def step(
    key: Array,
    model: Model,
    x: Any,
    state: State,
    *,
    batch_size: int,
    delay: float = 1.0,
    forgetting: float = 0.7,
) -> State:
    """lambda <- (1 - rho) lambda + rho lambda-hat, rho = (t + delay)^-forgetting, where lambda-hat
    is the coordinate update if the data were N / B copies of a minibatch (Hoffman et al. 2013, alg.
    1 and eq. 26, 34). All factors move at once.

    Args:
      key: of the rows of this step, drawn with replacement; all of them where B is N.
      model: see `engine.Model`.
      x: all data, a pytree [N, ...].
      state: the factors.
      batch_size: B.
      delay: of at least 1; more makes the first steps smaller.
      forgetting: in (0.5, 1], for which the steps converge (Robbins & Monro 1951).
    """
    num_data = jax.tree.leaves(x)[0].shape[0]
    rows = jnp.arange(num_data)
    if batch_size < num_data:
        rows = jax.random.randint(key, (batch_size,), 0, num_data)
    batch = jax.tree.map(lambda leaf: leaf[rows], x)
    target = optimum(model, state.natural, batch, num_data / batch_size)
    rho = (state.num_steps + delay) ** -forgetting
    natural = jax.tree.map(
        lambda old, new: ((1.0 - rho) * old + rho * new).astype(old.dtype), state.natural, target
    )
    return State(natural, state.num_steps + 1)


def fit(
    key: Array,
    model: Model,
    x: Any,
    start: Naturals,
    *,
    batch_size: int,
    num_steps: int,
    delay: float = 1.0,
    forgetting: float = 0.7,
) -> State:
    """So many steps, compiled: see `step`. `engine.elbo(model, state.natural, x)` is the ELBO that
    they reached.

    Args:
      start: natural parameters: `mixtures.init` on some rows for a mixture, else `model.start()`.

    Raises:
      ValueError: numbers out of range.
    """
    num_data = jax.tree.leaves(x)[0].shape[0]
    if not 1 <= batch_size <= num_data:
        raise ValueError(
            f"batch_size has to be 1..{num_data}, the rows of the data; got {batch_size}."
        )
    if not 0.5 < forgetting <= 1.0 or delay < 1.0:
        raise ValueError(
            "steps converge for forgetting in (0.5, 1] and delay of at least 1; got "
            f"{forgetting} and {delay}."
        )
    return _fit(model, batch_size, num_steps, delay, forgetting, key, x, start)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _fit(
    model: Model,
    batch_size: int,
    num_steps: int,
    delay: float,
    forgetting: float,
    key: Array,
    x: Any,
    start: Naturals,
) -> State:
    def one(state: State, key: Array) -> tuple[State, None]:
        return step(
            key, model, x, state, batch_size=batch_size, delay=delay, forgetting=forgetting
        ), None

    return jax.lax.scan(one, init(start), jax.random.split(key, num_steps))[0]
