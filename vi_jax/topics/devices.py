"""Topic models over several devices: documents over the axis `data` of a mesh, words over `model`.

The programs are those of one device, and XLA's partitioner puts the collectives in: the numbers are
the same but for the order of sums.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vi_jax.topics.blocks import Blocks

# of blocks by their leaves, with the axis B of blocks in front
_BLOCKS = {name: P(None, "data") for name in Blocks._fields} | {"words": P(None, "model")}
# leaves of states with the axis R of starts in front; the others are whole on every device
_STATES = {
    "stats": P(None, "model"),
    "lam": P(None, "model"),
    "average": P(None, "model"),
    "gamma": P(None, None, "data"),
    "memo": P(None, None, "model"),
}


def place_blocks(blocks: Blocks, mesh: Mesh | None) -> Blocks:
    """The blocks on the devices of a mesh, or on the only one."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, blocks)
    leaves = blocks._asdict()
    return Blocks(**{name: _put(leaf, _BLOCKS[name], mesh) for name, leaf in leaves.items()})


def place_state(state: Any, mesh: Mesh | None) -> Any:
    """A state of a fit likewise."""
    if mesh is None:
        return state
    leaves = state._asdict()
    return type(state)(
        **{name: _put(leaf, _STATES.get(name, P()), mesh) for name, leaf in leaves.items()}
    )


def _put(leaf: Any, spec: P, mesh: Mesh) -> Any:
    """A leaf over the mesh, whole along an axis that the devices do not divide: the vocabulary's,
    as blocks are made to be divided.
    """
    axes = [
        axis if axis is None or size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, leaf.shape, strict=False)
    ]
    return jax.device_put(leaf, NamedSharding(mesh, P(*axes)))
