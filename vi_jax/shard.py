"""One mesh, any number of devices: where the arrays of a run lie, and the programs that keep them
there.

    # all devices: examples over both axes, parameters over `model`
    mesh = vi.shard.make_mesh(data=-1, model=2)
    layout = vi.shard.make_layout(mesh)
    state = vi.init_state(key, model.init, optimizer, layout=layout)
    run = vi.make_run(step, batch_size=128, layout=layout)
    state, info = run(state, layout.replicate(x), 100)        # the same numbers as on one device

Built on `jax.jit` with a `NamedSharding` for each array: the programs are those of one device, and
XLA's partitioner puts the collectives in. Random bits are a function of (key, index) wherever they
are drawn (`jax_threefry_partitionable`), so that a run does not depend on the number of devices but
for the order of its sums.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vi_jax.types import Array, Guide, freeze

AXES = ("data", "model")
T = TypeVar("T")

# Names of the last axes of an array, by the last word of its path in the tree: Flax's names, for
# parameters, their averages and what an optimiser keeps of them alike. An array without an entry is
# whole on every device.
LOGICAL_AXES: Mapping[str, tuple[str, ...]] = {
    "kernel": ("in", "out"),
    "bias": ("out",),
    "scale": ("out",),
    "embedding": ("rows", "out"),
}
# The axis of the mesh that each is cut over; those without an entry are not cut.
RULES: Mapping[str, str] = {"out": "model"}


def make_mesh(
    data: int = -1, model: int = 1, *, devices: Sequence[Any] | None = None, explicit: bool = False
) -> Mesh:
    """A mesh of the axes `data` and `model`.

    Args:
      data, model: devices along each axis; one of them may be -1, all that the other leaves.
      devices: those to use; all of every process if not given.
      explicit: axes of type Explicit, where the sharding is part of an array's type, rather than
        Auto. Every function that takes a mesh or a layout takes both.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    found = list(jax.devices() if devices is None else devices)
    sizes = [data, model]
    count = len(found)
    if sizes.count(-1) == 1:
        rest = max(data, model)
        sizes[sizes.index(-1)] = count // rest if rest > 0 else 0
    if min(sizes) < 1 or math.prod(sizes) != count:
        raise ValueError(
            f"a mesh of data={data}, model={model} does not fit {count} "
            f"{'device' if count == 1 else 'devices'}: the sizes have to "
            "be positive and multiply to that number, or one of them has to be -1, all that the "
            "other leaves."
        )
    kind = AxisType.Explicit if explicit else AxisType.Auto
    return Mesh(np.array(found).reshape(sizes), AXES, axis_types=(kind, kind))


class Layout(NamedTuple):
    """Where the arrays of a run lie on a mesh; pure functions."""

    mesh: Mesh
    num_shards: int  # pieces of a batch: the devices of the mesh
    shardings: Callable[
        [Any], Any
    ]  # a tree of arrays or shapes -> its NamedShardings, by the rules
    replicated: Callable[[Any], Any]  # a tree of shapes -> of shapes that are whole on every device
    replicate: Callable[
        [T], T
    ]  # a tree that every process holds -> the same, whole on every device
    make: Callable[
        ..., Any
    ]  # (f, *args) -> f(*args) made where it belongs, never whole on one device
    # (read, shape, axis) -> an array cut along an axis: each process reads its devices' slices
    load: Callable[..., Array]
    fetch: Callable[
        [T], T
    ]  # a tree that lies anywhere -> whole copies of this process alone, on its first device
    spread: Callable[[T], T]  # inside a program: the leading axis of every leaf over all devices
    gather: Callable[[T], T]  # inside a program: whole on every device
    settle: Callable[[T], T]  # inside a program: by the rules
    jit: Callable[
        ..., Callable[..., Any]
    ]  # jax.jit whose program knows this mesh, whatever the type of its axes


def make_layout(mesh: Mesh, rules: Mapping[str, str] = RULES) -> Layout:
    """The layout of a run: examples over all devices, parameters and what is kept of them by
    `rules`.

    Fully sharded data parallelism (Rajbhandari et al. 2020, ZeRO stage 3; Zhao et al. 2023): each
    device holds a slice along `model` of every parameter and of what the optimiser keeps of it,
    gathers whole parameters for a step and lets them go after it. No activation is computed twice:
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

    def shardings(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(auto, spec_of(path, leaf.shape, mesh, rules)), tree
        )

    def constrain(tree: Any, spec: P) -> Any:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(auto, spec))

    def replicate(tree: T) -> T:
        return jax.tree.map(lambda leaf: _from_every_process(leaf, NamedSharding(auto, P())), tree)

    def make(f: Callable[..., Any], *args: Any) -> Any:
        kept = [
            _Packed.of(leaf) for leaf in jax.tree.leaves(args)
        ]  # numbers of the host: every process has the same
        structure = jax.tree.structure(args)

        def program(numbers: list[Any]) -> Any:
            return f(
                *jax.tree.unflatten(
                    structure, [pack.unpack(n) for pack, n in zip(kept, numbers, strict=True)]
                )
            )

        return jax.jit(program, out_shardings=shardings(jax.eval_shape(f, *args)))(
            [pack.numbers for pack in kept]
        )

    def load(
        read: Callable[[slice], np.ndarray], shape: tuple[int, ...], *, axis: int = 0
    ) -> Array:
        sharding = NamedSharding(auto, P(*[None] * axis, mesh.axis_names))
        return jax.make_array_from_callback(
            shape, sharding, lambda index: read(index[axis] if index else slice(None))
        )

    whole = jax.jit(lambda leaves: constrain(leaves, P()))

    def fetch(tree: T) -> T:
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(
            structure, [jnp.asarray(np.asarray(leaf)) for leaf in whole(leaves)]
        )

    return Layout(
        mesh=mesh,
        num_shards=mesh.size,
        shardings=shardings,
        replicated=lambda tree: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(auto, P())
            ),
            tree,
        ),
        replicate=replicate,
        make=make,
        load=load,
        fetch=fetch,
        spread=lambda tree: constrain(tree, P(mesh.axis_names)),
        gather=lambda tree: constrain(tree, P()),
        settle=lambda tree: jax.lax.with_sharding_constraint(tree, shardings(tree)),
        jit=lambda f, **options: _on_auto_axes(jax.jit(f, **options), auto),
    )


def spec_of(
    path: Sequence[Any], shape: tuple[int, ...], mesh: Mesh, rules: Mapping[str, str] = RULES
) -> P:
    """The PartitionSpec of an array of a shape at a path of a tree (as of
    `jax.tree_util.tree_flatten_with_path`).
    """
    name = _last_word(path)
    logical = LOGICAL_AXES.get(name, ())[-len(shape) :] if shape else ()
    sizes = shape[len(shape) - len(logical) :]

    def cut(axis: str, size: int) -> str | None:
        over = rules.get(axis)
        return over if over and mesh.shape[over] > 1 and size % mesh.shape[over] == 0 else None

    last = [cut(axis, size) for axis, size in zip(logical, sizes, strict=True)]
    return P(*[None] * (len(shape) - len(logical)), *last) if any(last) else P()


def as_auto(mesh: Mesh) -> Mesh:
    """The same mesh with axes of type Auto."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def over_draws(q: Guide, mesh: Mesh, axis: str = "data") -> Guide:
    """The same guide whose K draws lie over an axis of a mesh: for K that one device cannot hold,
    or not quickly.

    Any bound and estimator may be handed it: what follows the draws is computed where they lie, and
    the log-sum-exp over K is one maximum and one sum over the devices. The draws are those of `q`.
    K has to be a multiple of the axis.

    Args:
      q: any guide. Under a vmap over examples the draws of each are laid out so.
      mesh, axis: where.

    Raises:
      ValueError: the mesh has no such axis, or (when drawing) it does not divide K.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"the mesh has no axis {axis!r}; it has {', '.join(mesh.axis_names)}.")
    return _OverDraws(q, NamedSharding(as_auto(mesh), P(axis)))


def iwae(log_w: Array, axis_name: str) -> Array:
    """The importance-weighted bound of log-weights that lie over devices, inside `jax.shard_map`:
    `bounds.iwae` of all of them.

    log (1/K) sum_k w_k with K = devices x draws on each (Burda et al. 2016, eq. 8), by one maximum
    and one sum over `axis_name`.

    Args:
      log_w: [K / devices] of this device, nats.
      axis_name: of the mesh, as in the `shard_map`.

    Returns:
      Nats, a scalar, the same on every device.
    """
    total = jax.lax.psum(log_w.shape[0], axis_name)
    highest = jax.lax.pmax(freeze(jnp.max(log_w)), axis_name)
    shift = jnp.where(
        jnp.isfinite(highest), highest, 0
    )  # all weights 0, or one infinite: as logsumexp has it
    return (
        jnp.log(jax.lax.psum(jnp.sum(jnp.exp(log_w - shift)), axis_name)) + shift - jnp.log(total)
    )


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
                f"{sample_shape[0]} draws do not lie evenly over {parts} devices; take a "
                f"multiple of {parts}."
            )
        return jax.lax.with_sharding_constraint(z, sharding)

    def log_prob(self, value: Any) -> Array:
        return self._q.log_prob(value)

    def __getattr__(
        self, name: str
    ) -> Any:  # mean, event_shape, has_rsample, ... are those of the guide
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._q, name)

    def tree_flatten(self) -> tuple[tuple[Any], NamedSharding]:
        return (self._q,), self._sharding

    @classmethod
    def tree_unflatten(cls, sharding: NamedSharding, children: tuple[Any]) -> "_OverDraws":
        return cls(children[0], sharding)


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


def _last_word(path: Sequence[Any]) -> str:
    last = path[-1] if path else ""
    return str(getattr(last, "key", getattr(last, "name", last)))


def _from_every_process(leaf: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        data = _from_every_process(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))


def _on_auto_axes(compiled: Any, auto: Mesh) -> Callable[..., Any]:
    """Arrays of a mesh with Explicit axes are taken as lying the same way on Auto axes: the bytes
    stay where they are.
    """

    def as_auto_array(leaf: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        if (
            isinstance(sharding, NamedSharding)
            and sharding.mesh != auto
            and AxisType.Explicit in sharding.mesh.axis_types
        ):
            return jax.device_put(leaf, NamedSharding(auto, sharding.spec))
        return leaf

    def call(*args: Any) -> Any:
        return compiled(*jax.tree.map(as_auto_array, args))

    return call
