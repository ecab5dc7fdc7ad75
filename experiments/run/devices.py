"""The devices of a run: where its arrays lie, by config.mesh."""

from typing import Any

import jax

import vi_jax as vi
from experiments import terminal
from experiments.cli import UserError
from vi_jax.shard import ALONE, Layout
from vi_jax.training import State, evaluation_params, require_batches


def make_layout(config: Any, *, cuts_batches: bool = True) -> Layout:
    """Where the arrays of a run lie, from config.mesh. `cuts_batches`: over its devices.

    Raises:
      UserError: the devices do not fit the mesh, or a batch does not lie evenly over them.
    """
    sizes = (config.mesh.data, config.mesh.model)
    devices = jax.devices()
    taken = sizes[0] * sizes[1]
    if -1 not in sizes and jax.process_count() == 1 and taken < len(devices):
        terminal.say(f"note: config.mesh takes {taken} of {len(devices)} devices.")
        devices = devices[:taken]
    try:
        mesh = vi.shard.make_mesh(*sizes, devices=devices)
        layout = vi.shard.make_layout(mesh)
        require_batches(config.train.batch_size, layout if cuts_batches else ALONE)
    except ValueError as error:
        raise UserError(f"config.mesh and config.train.batch_size: {error}") from None
    return layout if mesh.size > 1 else ALONE


def describe(layout: Layout) -> str:
    """The mesh, in a line."""
    axes = {} if layout.mesh is None else layout.mesh.shape
    sizes = " x ".join(f"{axis} {size}" for axis, size in axes.items())
    count = jax.process_count()
    processes = f", in {count} processes" if count > 1 else ""
    return f"on {layout.num_shards} devices, {sizes}{processes}"


def whole_params(state: State, layout: Layout) -> vi.types.Params:
    """The parameters that evaluation uses, on one device."""
    return layout.fetch(evaluation_params(state))
