"""The layout of one device: every array is where it is, and programs are those of `jax.jit`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vi_jax.shard.layout import Layout
from vi_jax.types import Array


def as_layout(layout: Layout | None) -> Layout:
    """The layout, `ALONE` where none is given: for the entrances of programs, below which there is
    one case.
    """
    return ALONE if layout is None else layout


def _as_it_is(tree: Any) -> Any:
    return tree


def _anywhere(tree: Any) -> Any:
    """None for each leaf, as `jax.jit` takes it: wherever the leaf is made."""
    return jax.tree.map(lambda leaf: None, tree)


def _make(f: Callable[..., Any], *args: Any) -> Any:
    return jax.jit(f)(*args)


def _load(read: Callable[[slice], np.ndarray], shape: tuple[int, ...], *, axis: int = 0) -> Array:
    del shape, axis  # all of it, along any axis
    return jax.device_put(read(slice(None)))


# one device: the identity, by which programs without a layout are those with one
ALONE = Layout(
    mesh=None,
    num_shards=1,
    shardings=_anywhere,
    replicated=_as_it_is,
    replicate=_as_it_is,
    make=_make,
    load=_load,
    fetch=_as_it_is,
    spread=_as_it_is,
    gather=_as_it_is,
    settle=_as_it_is,
    jit=jax.jit,
)
