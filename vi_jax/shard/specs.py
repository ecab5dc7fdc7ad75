"""Partition specs: the axes of a mesh that an array is cut over, by its name in a tree."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

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


def _last_word(path: Sequence[Any]) -> str:
    last = path[-1] if path else ""
    return str(getattr(last, "key", getattr(last, "name", last)))
