"""Importance samples over devices: guides whose K samples lie on a mesh, and their bound."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vi_jax.shard.mesh import as_auto
from vi_jax.types import Array, Guide, freeze


def over_draws(q: Guide, mesh: Mesh, axis: str = "data") -> Guide:
    """The same guide whose K samples are sharded over an axis of a mesh: for K that one device
    cannot hold, or not quickly.

    Any bound and estimator accepts it: what follows the samples is computed where they lie, and
    the log-sum-exp over K is one maximum and one sum over the devices. The samples are those of
    `q`. K has to be a multiple of the axis.

    Args:
      q: any guide. Under a vmap over examples the samples of each are laid out so.
      mesh, axis: the mesh, and the name of the axis.

    Raises:
      ValueError: the mesh has no such axis, or (when sampling) it does not divide K.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"the mesh has no axis {axis!r}; it has {', '.join(mesh.axis_names)}.")
    return _OverDraws(q, NamedSharding(as_auto(mesh), P(axis)))


def iwae(log_w: Array, axis_name: str) -> Array:
    """The importance-weighted bound of log-weights that lie over devices, inside `jax.shard_map`:
    `bounds.iwae` of all of them.

    log (1/K) sum_k w_k with K = devices x samples on each (Burda et al. 2016, eq. 8), by one
    maximum and one sum over `axis_name`.

    Args:
      log_w: [K / devices] of this device, nats.
      axis_name: of the mesh, as in the `shard_map`.

    Returns:
      Nats, a scalar, the same on every device.
    """
    total = jax.lax.psum(log_w.shape[0], axis_name)
    highest = jax.lax.pmax(freeze(jnp.max(log_w)), axis_name)
    # all weights 0, or one infinite: as logsumexp has it
    shift = jnp.where(jnp.isfinite(highest), highest, 0)
    weights = jax.lax.psum(jnp.sum(jnp.exp(log_w - shift)), axis_name)
    return jnp.log(weights) + shift - jnp.log(total)


@jax.tree_util.register_pytree_node_class
class _OverDraws:
    def __init__(self, q: Any, sharding: NamedSharding) -> None:
        self._q = q
        self._sharding = sharding

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        z = self._q.sample(key, sample_shape)
        sharding = self._sharding
        if not sample_shape:
            return z
        parts = math.prod(sharding.mesh.shape[axis] for axis in sharding.spec)
        if sample_shape[0] % parts:
            raise ValueError(
                f"{sample_shape[0]} samples do not lie evenly over {parts} devices; take a "
                f"multiple of {parts}."
            )
        return jax.lax.with_sharding_constraint(z, sharding)

    def log_prob(self, value: Any) -> Array:
        return self._q.log_prob(value)

    # mean, event_shape, has_rsample, ... are those of the guide
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._q, name)

    def tree_flatten(self) -> tuple[tuple[Any], NamedSharding]:
        return (self._q,), self._sharding

    @classmethod
    def tree_unflatten(cls, sharding: NamedSharding, children: tuple[Any]) -> "_OverDraws":
        return cls(children[0], sharding)
