"""Guide and prior over the start and the inferred inputs of a recurrent generator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.gaussian import log_standard_normal
from vi_jax.models._driven import Networks, Steps, decay_of, follow, kl_of, noise_of
from vi_jax.types import Array, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DrivenGuide:
    """q(z) prod_t q(u_t | z, u_1 .. u_(t-1)) of one trial, over {"z": [D], "inputs": [T, U]}."""

    start: Any  # q(z)
    params: Params
    encoded: Array  # [T, E]
    is_there: Array  # bool, [T]
    networks: Networks = field(metadata={"static": True})

    has_rsample = True
    batch_shape = ()

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Samples, reparameterised."""
        keys = jax.random.split(key, sample_shape)
        sample_one = self._sample_one
        for _ in sample_shape:
            sample_one = jax.vmap(sample_one)
        return sample_one(keys)

    def _sample_one(self, key: Array) -> dict[str, Array]:
        return self.draw(key)[0]

    def draw(self, key: Array) -> tuple[dict[str, Array], Array]:
        """One sample, and the KL of its inputs from the prior's given those before, nats, [U]."""
        (key_z, key_inputs) = jax.random.split(key)
        z = self.start.sample(key_z)
        shape = (self.encoded.shape[0], self.networks.controller.num_inputs)
        noise = jax.random.normal(key_inputs, shape, z.dtype)
        steps = self._follow(z, noise, is_noise=True)
        return {"z": z, "inputs": steps.inputs}, kl_of(self.params, steps)

    def log_prob(self, value: Mapping[str, Array]) -> Array:
        """log q, nats, of one z and its inputs."""
        steps = self._follow(value["z"], value["inputs"], is_noise=False)
        decay = decay_of(self.params["inputs"])
        off = steps.inputs - decay * _before(steps.inputs) - steps.shift
        return self.start.log_prob(value["z"]) + _log_normal(off, steps.variance)

    def _follow(self, z: Array, given: Array, *, is_noise: bool) -> Steps:
        own = (self.networks, self.params, self.encoded, self.is_there)
        return follow(*own, z, given, is_noise=is_noise)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DrivenPrior:
    """p(z) p(u): a stationary autoregression of order 1 for each input."""

    start: Any  # p(z)
    inputs: Params
    num_steps: int = field(metadata={"static": True})

    has_rsample = True
    batch_shape = ()

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Array]:
        """Samples, reparameterised."""
        (key_z, key_inputs) = jax.random.split(key)
        decay = decay_of(self.inputs)
        sd = jnp.sqrt(noise_of(self.inputs, self.num_steps))
        noise = sd * jax.random.normal(key_inputs, (*sample_shape, *sd.shape), sd.dtype)

        def step(before: Array, noise: Array) -> tuple[Array, Array]:
            inputs = decay * before + noise
            return inputs, inputs

        noise = jnp.moveaxis(noise, -2, 0)
        _, inputs = jax.lax.scan(step, jnp.zeros_like(noise[0]), noise)
        return {"z": self.start.sample(key_z, sample_shape), "inputs": jnp.moveaxis(inputs, 0, -2)}

    def log_prob(self, value: Mapping[str, Array]) -> Array:
        """log p, nats, of one z and its inputs."""
        inputs = value["inputs"]
        off = inputs - decay_of(self.inputs) * _before(inputs)
        of_inputs = _log_normal(off, noise_of(self.inputs, self.num_steps))
        return self.start.log_prob(value["z"]) + of_inputs


def _before(inputs: Array) -> Array:
    """The input of the step before, at the first 0, [T, U]."""
    return jnp.concatenate([jnp.zeros_like(inputs[:1]), inputs[:-1]])


def _log_normal(off: Array, variance: Array) -> Array:
    """The sum of log N(off | 0, variance), nats."""
    sd = jnp.sqrt(variance)
    return log_standard_normal((off / sd).ravel()) - jnp.log(sd).sum()
