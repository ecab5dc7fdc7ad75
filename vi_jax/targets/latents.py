"""The latents of a target as data: names, supports and shapes, without the density."""

from typing import Any, NamedTuple

import jax

from vi_jax.targets.target import Coordinates, Site
from vi_jax.types import Array


class Latents(NamedTuple):
    """The sites that a target's coordinates u [D] stand for, and the pytree they form."""

    sites: tuple[Site, ...]
    # the pytree with the name of a site at each leaf; a dict by site where the target is a model's
    tree: Any
    # whether the target's `constrain` gives these sites and no others; not where a model computes
    # deterministic ones
    is_all: bool = True

    def constrain(self, u: Array) -> Any:
        """The pytree of sites of u [D]."""
        sites, _ = Coordinates(self.sites).constrain(u)
        return jax.tree.map(lambda name: sites[name], self.tree)

    def unconstrain(self, z: Any) -> Array:
        """u [D] of the pytree of sites."""
        names = jax.tree.leaves(self.tree)
        structure: Any = jax.tree.structure(self.tree)
        values = structure.flatten_up_to(z)
        return Coordinates(self.sites).unconstrain(dict(zip(names, values, strict=True)))
