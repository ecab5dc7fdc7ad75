"""Several layers of densities as one, each given all before it; `Program` takes its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.distributions.shapes import sample_over
from vi_jax.distributions.transports import from_noise, to_noise

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layers:
    """p(z_1) p(z_2 | z_1) p(z_3 | z_1, z_2) ...: a hierarchical guide or prior as one density over
    the tuple (z_1, z_2, ...). Deprecated: `Program` says what each layer depends on.

    Each layer is a function (params, z_1, ..., z_{l-1}) -> distribution of z_l, reparameterised and
    with an event of its own; all numbers that it knows are in `params`, a pytree, so that `freeze`,
    `jit` and `grad` see them.
    """

    params: Any
    layers: tuple[Callable[..., Any], ...] = field(metadata={"static": True})
    has_rsample = True

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """Draws, top down, each leaf [*sample_shape, ...]."""
        return sample_over(self._one, key, sample_shape)

    def _one(self, key: Array) -> tuple[Any, ...]:
        z: tuple[Any, ...] = ()
        for key_l, layer in zip(jax.random.split(key, len(self.layers)), self.layers, strict=True):
            z = (*z, layer(self.params, *z).sample(key_l))
        return z

    def log_prob(self, value: tuple[Any, ...]) -> Array:
        """log p(z_1, z_2, ...) of one z, nats."""
        return sum(
            (p.log_prob(z_l) for p, z_l in zip(self._given(value), value, strict=True)),
            jnp.zeros(()),
        )

    def to_noise(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """eps of one z: `from_noise` undone."""
        return tuple(to_noise(p, z_l) for p, z_l in zip(self._given(value), value, strict=True))

    def from_noise(self, eps: tuple[Any, ...]) -> tuple[Any, ...]:
        """z of one eps; what a layer is given depends on the parameters too."""
        z: tuple[Any, ...] = ()
        for layer, eps_l in zip(self.layers, eps, strict=True):
            z = (*z, from_noise(layer(self.params, *z), eps_l))
        return z

    def _given(self, value: tuple[Any, ...]) -> list[Any]:
        if len(value) != len(self.layers):
            raise ValueError(
                f"Layers expects one z for each of its {len(self.layers)} layers; got {len(value)}."
            )
        return [layer(self.params, *value[:l]) for l, layer in enumerate(self.layers)]
