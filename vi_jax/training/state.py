"""The state of a run: what is carried from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax.arguments import as_key, require_function, require_optimizer
from vi_jax.shard import Layout, as_layout
from vi_jax.types import Array, Params


class State(NamedTuple):
    """What is carried from step to step, a pytree of arrays."""

    step: Array  # int32, steps done
    key: Array  # the run's key; never used itself, only folded with a step or an epoch
    params: Params
    opt_state: Any
    ema: Params  # averaged parameters, or () where averaging is off
    # int32, steps left out because they were not finite; () where they are not counted
    skipped: Any = ()


def init_state(
    key: Array,
    init: Callable[[Array], Params],
    optimizer: optax.GradientTransformation,
    *,
    ema: bool = False,
    layout: Layout | None = None,
) -> State:
    """The state before the first step; `key` is split into one for the parameters and one for the
    run.

    Args:
      key: one typed PRNG key.
      init: key -> params, e.g. `model.init`.
      optimizer: any optax transformation.
      ema: keep averaged parameters too (give `make_step` their decay).
      layout: where the state lies (`vi_jax.shard`); one device if not given.
    """

    key = as_key(key, "init_state")
    require_function(init, "init_state", name="init")
    require_optimizer(optimizer, "init_state")
    return as_layout(layout).make(make_init(init, optimizer, ema=ema), key)


def make_init(
    init: Callable[[Array], Params], optimizer: optax.GradientTransformation, *, ema: bool = False
) -> Callable[[Array], State]:
    """The function of a key that `init_state` runs, to be compiled once for several keys.

    Args:
      init, optimizer, ema: as of `init_state`.
    """

    def make(key: Array) -> State:
        key_init, key_run = jax.random.split(key)
        params = jax.tree.map(jnp.asarray, init(key_init))
        averaged = jax.tree.map(jnp.copy, params) if ema else ()
        return State(
            jnp.zeros((), jnp.int32),
            key_run,
            params,
            optimizer.init(params),
            averaged,
            jnp.zeros((), jnp.int32),
        )

    return make


def evaluation_params(state: State) -> Params:
    """The averaged parameters where there are any, else the trained ones."""
    return state.params if isinstance(state.ema, tuple) and state.ema == () else state.ema
