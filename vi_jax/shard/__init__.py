"""Sharding over devices: data parallelism and fully sharded parameters on one mesh.

    # all devices: examples over both axes, parameters over `model`
    mesh = vi.shard.make_mesh(data=-1, model=2)
    layout = vi.shard.make_layout(mesh)
    state = vi.init_state(key, model.init, optimizer, layout=layout)
    run = vi.make_run(step, batch_size=128, layout=layout)
    state, info = run(state, layout.replicate(x), 100)        # the same numbers as on one device

`ALONE`, the layout of one device, changes nothing; what takes a layout takes None for it.

Built on `jax.jit` with a `NamedSharding` for each array: the programs are those of one device, and
XLA's partitioner puts the collectives in. Random bits are a function of (key, index) wherever they
are drawn (`jax_threefry_partitionable`), so that a run does not depend on the number of devices but
for the order of its sums.
"""

from vi_jax.shard.alone import ALONE, as_layout
from vi_jax.shard.layout import Layout, make_layout
from vi_jax.shard.mesh import AXES, as_auto, make_mesh
from vi_jax.shard.samples import iwae, over_draws
from vi_jax.shard.specs import LOGICAL_AXES, RULES, spec_of

__all__ = [
    "ALONE",
    "AXES",
    "LOGICAL_AXES",
    "RULES",
    "Layout",
    "as_auto",
    "as_layout",
    "iwae",
    "make_layout",
    "make_mesh",
    "over_draws",
    "spec_of",
]
