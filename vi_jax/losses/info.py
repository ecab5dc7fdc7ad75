"""What a loss reports beside its value, and the parameters that a model updates itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array, Model, Params, freeze


@jax.tree_util.register_static
@dataclass(frozen=True)
class Moved:
    """Which leaves of the parameters `Model.update` has moved, in the order of `jax.tree.leaves`;
    empty for none. Static.
    """

    leaves: tuple[bool, ...] = ()


class Info(NamedTuple):
    """What a loss reports beside its value."""

    metrics: dict[str, Array]  # scalars, nats per example
    params: Params  # those given, with the leaves that `Model.update` moves at their new value
    moved: Moved = Moved()  # these leaves: an optimiser leaves them alone


Loss = Callable[[Params, Array, Any, Array], tuple[Array, Info]]


def moved_by(model: Model, key: Array, params: Params, stats: Any) -> Moved:
    """Which leaves `Model.update` moves; `stats` may be shapes.

    Raises:
      ValueError: the update changes the structure or a shape of the parameters.
    """
    update: Any = model.update
    traced, shapes = jax.make_jaxpr(update, return_shape=True)(key, params, stats)
    was = jax.tree.map(jnp.shape, params)
    now = jax.tree.map(lambda leaf: leaf.shape, shapes)
    if now != was:
        raise ValueError(
            "Model.update has to return parameters of the structure and shapes that it was "
            f"given, {was}; it returned {now}."
        )
    num_leaves = len(jax.tree.leaves(params))
    given = traced.jaxpr.invars[1 : 1 + num_leaves]
    moved = [out is not var for out, var in zip(traced.jaxpr.outvars, given, strict=True)]
    return Moved(tuple(moved))


def updated(model: Model, key: Array, params: Params, stats: Any) -> tuple[Params, Moved]:
    """The parameters after `Model.update`, no gradient through what it moved, and which leaves
    these are.

    Args:
      model: with an update.
      key: for what the update draws.
      params: as they stand.
      stats: mean over the batch.

    Raises:
      ValueError: the update changes the structure or a shape of the parameters.
    """
    moved = moved_by(model, key, params, stats)
    update: Any = model.update
    old, structure = jax.tree.flatten(params)
    new = jax.tree.leaves(update(key, params, stats))
    kept = [
        freeze(jnp.asarray(after, before.dtype)) if has_moved else before
        for before, after, has_moved in zip(old, new, moved.leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, kept), moved


def without_moved(params: Params, moved: Moved) -> Params:
    """The parameters, no gradient through what `Model.update` moves."""
    leaves, structure = jax.tree.flatten(params)
    kept = [
        freeze(leaf) if has_moved else leaf
        for leaf, has_moved in zip(leaves, moved.leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)
