"""The layout of a run: where its arrays lie on a mesh, and the programs that keep them there."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vi_jax.shard.mesh import as_auto
from vi_jax.shard.specs import RULES, spec_of
from vi_jax.types import Array

T = TypeVar("T")


class Layout(NamedTuple):
    """Where the arrays of a run lie on a mesh; pure functions.

    `shardings`, `replicated`, `replicate`, `make`, `load` and `fetch` are called outside a
    program; `spread`, `gather` and `settle` inside one.
    """

    # None where there is none: one device (`ALONE`)
    mesh: Mesh | None
    # pieces of a batch: the devices of the mesh
    num_shards: int
    # a tree of arrays or shapes -> its NamedShardings, by the rules
    shardings: Callable[[Any], Any]
    # a tree of shapes -> of shapes that are whole on every device
    replicated: Callable[[Any], Any]
    # a tree that every process holds -> the same, whole on every device
    replicate: Callable[[T], T]
    # (f, *args) -> f(*args) made where it belongs, never whole on one device
    make: Callable[..., Any]
    # (read, shape, axis) -> an array cut along an axis: each process reads its devices' slices
    load: Callable[..., Array]
    # a tree that lies anywhere -> whole copies of this process alone, on its first device
    fetch: Callable[[T], T]
    # the leading axis of every leaf over all devices
    spread: Callable[[T], T]
    # whole on every device
    gather: Callable[[T], T]
    # by the rules
    settle: Callable[[T], T]
    # jax.jit whose program knows this mesh, whatever the type of its axes
    jit: Callable[..., Callable[..., Any]]


def make_layout(mesh: Mesh, rules: Mapping[str, str] = RULES) -> Layout:
    """The layout of a run: examples over all devices, parameters and what is kept of them by
    `rules`.

    Fully sharded data parallelism (Rajbhandari et al. 2020, ZeRO stage 3; Zhao et al. 2023): each
    device holds a slice along `model` of every parameter and of what the optimiser keeps of it,
    gathers whole parameters for a step and releases them after it. No activation is computed twice:
    the examples of a batch lie over both axes. With model=1 it is plain data parallelism.

    Args:
      mesh: of `make_mesh`, or any with the axes named in `rules`.
      rules: logical axis -> axis of the mesh; the logical axes of an array are in `LOGICAL_AXES`,
        by the last word of its path. An axis that the devices do not divide is left whole.

    Raises:
      ValueError: a rule names an axis that the mesh has not.
    """
    for name, axis in rules.items():
        if axis not in mesh.axis_names:
            raise ValueError(
                f"the rule {name!r}: {axis!r} names no axis of the mesh, which has "
                f"{', '.join(mesh.axis_names)}."
            )
    auto = as_auto(mesh)
    everywhere = NamedSharding(auto, P())
    over_devices = NamedSharding(auto, P(mesh.axis_names))
    shardings = partial(_shardings, mesh=mesh, auto=auto, rules=rules)
    return Layout(
        mesh=mesh,
        num_shards=mesh.size,
        shardings=shardings,
        replicated=partial(_shapes, sharding=everywhere),
        replicate=partial(_replicate, sharding=everywhere),
        make=partial(_make, shardings),
        load=partial(_load, auto),
        fetch=partial(_fetch, jax.jit(partial(_constrain, sharding=everywhere))),
        spread=partial(_constrain, sharding=over_devices),
        gather=partial(_constrain, sharding=everywhere),
        settle=partial(_settle, shardings),
        jit=partial(_jit, auto),
    )


def _shardings(tree: Any, mesh: Mesh, auto: Mesh, rules: Mapping[str, str]) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(auto, spec_of(path, leaf.shape, mesh, rules)), tree
    )


def _shapes(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes and dtypes of a tree, lying so."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _constrain(tree: Any, sharding: NamedSharding) -> Any:
    return jax.lax.with_sharding_constraint(tree, sharding)


def _settle(shardings: Callable[[Any], Any], tree: Any) -> Any:
    return jax.lax.with_sharding_constraint(tree, shardings(tree))


def _replicate(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: _from_every_process(leaf, sharding), tree)


def _make(shardings: Callable[[Any], Any], f: Callable[..., Any], *args: Any) -> Any:
    # numbers of the host: every process has the same
    packs = [_Packed.of(leaf) for leaf in jax.tree.leaves(args)]
    structure = jax.tree.structure(args)

    def program(numbers: list[Any]) -> Any:
        leaves = [pack.unpack(n) for pack, n in zip(packs, numbers, strict=True)]
        return f(*jax.tree.unflatten(structure, leaves))

    made = jax.jit(program, out_shardings=shardings(jax.eval_shape(f, *args)))
    return made([pack.numbers for pack in packs])


def _load(
    auto: Mesh,
    read: Callable[[slice], np.ndarray],
    shape: tuple[int, ...],
    *,
    axis: int = 0,
) -> Array:
    sharding = NamedSharding(auto, P(*[None] * axis, auto.axis_names))

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
        cut = index[axis] if index else slice(None)
        return read(cut)

    return jax.make_array_from_callback(shape, sharding, piece)


def _fetch(whole: Callable[[Any], Any], tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    copies = [jnp.asarray(np.asarray(leaf)) for leaf in whole(leaves)]
    return jax.tree.unflatten(structure, copies)


def _jit(auto: Mesh, f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """jax.jit for arrays of this mesh, whatever the type of its axes: arrays of a mesh with
    Explicit axes are taken as lying the same way on Auto axes, and the bytes stay where they are.
    """
    compiled = jax.jit(f, **options)

    def call(*args: Any) -> Any:
        return compiled(*jax.tree.map(lambda leaf: _on_auto_axes(leaf, auto), args))

    return call


def _on_auto_axes(leaf: Any, auto: Mesh) -> Any:
    sharding = getattr(leaf, "sharding", None)
    if (
        isinstance(sharding, NamedSharding)
        and sharding.mesh != auto
        and AxisType.Explicit in sharding.mesh.axis_types
    ):
        return jax.device_put(leaf, NamedSharding(auto, sharding.spec))
    return leaf


class _Packed(NamedTuple):
    """An array as numbers of the host, and the kind of key that it was."""

    numbers: np.ndarray
    impl: Any

    @classmethod
    def of(cls, leaf: Any) -> "_Packed":
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            return cls(np.asarray(jax.random.key_data(leaf)), jax.random.key_impl(leaf))
        return cls(np.asarray(leaf), None)

    def unpack(self, numbers: Array) -> Array:
        return numbers if self.impl is None else jax.random.wrap_key_data(numbers, impl=self.impl)


def _from_every_process(leaf: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        data = _from_every_process(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))
