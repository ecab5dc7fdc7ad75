"""Meshes of devices with the axes `data` and `model`."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

AXES = ("data", "model")


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
    found = jax.devices() if devices is None else list(devices)
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


def as_auto(mesh: Mesh) -> Mesh:
    """The same mesh with axes of type Auto."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
