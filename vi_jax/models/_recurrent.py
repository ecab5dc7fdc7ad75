"""Recurrent networks of sequences: an encoder both ways along the steps, a decoder of a vector."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vi_jax.types import Array

_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class Encoder(nn.Module):
    """Gated recurrent units (Cho et al. 2014) forwards and backwards over the first `length` steps;
    their last states together, through a dense layer that starts small.
    """

    width: int
    num_outputs: int
    dtype: Any = None  # of the activations

    @nn.compact
    def __call__(self, features: Array, length: Array) -> Array:
        """[num_outputs] of features [T, F], of which none after the first `length` matter."""
        last = jnp.maximum(length - 1, 0)
        backwards = (last - jnp.arange(features.shape[0])) % features.shape[0]
        sides = [
            gru(self.width, self.dtype, "forwards")(features)[last],
            gru(self.width, self.dtype, "backwards")(features[backwards])[last],
        ]
        states = jnp.concatenate(sides).astype(features.dtype)
        known = jnp.where(length > 0, states, 0.0)
        return nn.Dense(self.num_outputs, kernel_init=_small)(known)


class Decoder(nn.Module):
    """A gated recurrent unit that starts at a function of z and is given z and the covariates at
    each step; a dense layer of its states.
    """

    width: int
    num_outputs: int
    bias_init: Callable[..., Array]  # of the last layer
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array, given: Array) -> Array:
        """[T, num_outputs] of z [D] and what is given at each step, [T, C]."""
        start = nn.tanh(nn.Dense(self.width, dtype=self.dtype)(z))
        at_each_step = jnp.broadcast_to(z, (given.shape[0], z.shape[0]))
        inputs = jnp.concatenate([at_each_step, given.astype(z.dtype)], axis=-1)
        states = gru(self.width, self.dtype, "steps")(inputs, initial_carry=start)
        return nn.Dense(self.num_outputs, bias_init=self.bias_init)(states.astype(z.dtype))


def gru(width: int, dtype: Any, name: str) -> Any:
    """Gated recurrent units over the steps of a sequence."""
    return nn.RNN(nn.GRUCell(width, dtype=dtype), name=name)
