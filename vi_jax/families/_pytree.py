"""The latents of a family, a number D or an example pytree of arrays, and guides over a pytree made
of guides over a vector.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array


class Layout(NamedTuple):
    """Where the leaves of a pytree lie in one vector [D]: in the order of `jax.tree.leaves`, each
    by rows. Hashable.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def event_shape(self) -> Any:
        return self.treedef.unflatten(self.shapes)

    def ravel(self, tree: Any) -> Array:
        """Leaves [*lead, *shape] -> [*lead, D]."""
        leaves = [jnp.asarray(leaf) for leaf in self.treedef.flatten_up_to(tree)]
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if leaf.shape[leaf.ndim - len(shape) :] != shape:
                raise ValueError(
                    f"this guide is over leaves of shapes {self.event_shape}; got one of shape "
                    f"{leaf.shape}."
                )
        leads = [
            leaf.shape[: leaf.ndim - len(shape)]
            for leaf, shape in zip(leaves, self.shapes, strict=True)
        ]
        rows = [
            leaf.reshape(*lead, size)
            for leaf, lead, size in zip(leaves, leads, self.sizes, strict=True)
        ]
        return jnp.concatenate(rows, axis=-1)

    def unravel(self, vector: Array) -> Any:
        """[*lead, D] -> leaves [*lead, *shape]."""
        parts = jnp.split(vector, np.cumsum(self.sizes)[:-1], axis=-1)
        leaves = [
            part.reshape(*vector.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return self.treedef.unflatten(leaves)


class Latents(NamedTuple):
    """The latents of a family: their number, and their layout where they are a pytree."""

    size: int
    layout: Any = None

    def wrap(self, q: Any) -> Any:
        """The guide over the latents as they were asked for, from one over vectors [D]."""
        return q if self.layout is None else TreeGuide(q, self.layout)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TreeGuide:
    """A guide over a pytree, from a guide over its leaves laid in one vector; the density is the
    same number (the map is linear of determinant 1). Samples have the shapes of the example and the
    dtype of the parameters.
    """

    base: Any
    layout: Any = field(metadata={"static": True})

    @property
    def has_rsample(self) -> bool:
        return getattr(self.base, "has_rsample", True)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def event_shape(self) -> Any:
        return self.layout.event_shape

    @property
    def mean(self) -> Any:
        """E_q[z], leaves shaped as the example's; AttributeError where the family knows none in
        closed form.
        """
        return self.layout.unravel(self.base.mean)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.layout.unravel(self.base.sample(key, sample_shape))

    def log_prob(self, value: Any) -> Array:
        return self.base.log_prob(self.layout.ravel(value))

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Any, Array]:
        z, log_q = self.base.sample_and_log_prob(key, sample_shape)
        return self.layout.unravel(z), log_q

    def sample_stratified(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Any, Array]:
        z, log_weights = self.base.sample_stratified(key, sample_shape)
        return self.layout.unravel(z), log_weights


def read_latents(name: str, example: Any) -> Latents:
    """The latents that a factory's first argument asks for: D for a whole number, else the leaves
    of a pytree.

    Raises:
      ValueError: there are none, or a leaf is not real.
    """
    if isinstance(example, int | np.integer) and not isinstance(example, bool):
        if example < 1:
            raise ValueError(f"{name} expects num_latents of at least 1; got {example}.")
        return Latents(int(example))
    leaves, treedef = jax.tree.flatten(example)
    for leaf in leaves:
        if not hasattr(leaf, "shape") and not isinstance(leaf, float):
            raise ValueError(
                f"{name} expects a number of latents or a pytree of arrays; got a leaf {leaf!r}."
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"{name} is over real latents; got an example leaf of dtype "
                f"{jnp.result_type(leaf)}."
            )
    layout = Layout(treedef, tuple(tuple(np.shape(leaf)) for leaf in leaves))
    if layout.size < 1:
        raise ValueError(
            f"{name} expects a number of latents of at least 1; got {layout.size}, in the pytree "
            f"{treedef}."
        )
    return Latents(layout.size, layout)
