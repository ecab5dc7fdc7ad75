"""A recurrent generator driven by inferred inputs, and a controller that follows it (Pandarinath et
al. 2018).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.models import _recurrent
from vi_jax.types import Array, Params

MIN_VARIANCE = 1e-4  # of the guide
START_STEPS = 10.0  # over which inputs are correlated, at the start
START_VARIANCE = 0.1

_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class StepEncoder(nn.Module):
    """Gated recurrent units both ways over the first `length` steps, their states at each step."""

    width: int

    @nn.compact
    def __call__(self, features: Array, length: Array) -> Array:
        """[T, 2 width] of features [T, F]; those after the first `length` steps mean nothing."""
        num_steps = features.shape[0]
        last = jnp.maximum(length - 1, 0)
        backwards = (last - jnp.arange(num_steps)) % num_steps
        ahead = _recurrent.gru(self.width, None, "forwards")(features)
        behind = _recurrent.gru(self.width, None, "backwards")(features[backwards])
        return jnp.concatenate([ahead, behind[backwards]], axis=-1)


class Generator(nn.Module):
    """Gated recurrent units that start at a function of z and are given inputs at each step;
    factors are projections of their states on unit vectors, predictors are linear in the factors.
    """

    width: int
    num_factors: int
    num_units: int
    start: tuple[float, ...]  # of the predictors

    def setup(self) -> None:
        """Its layers."""
        bias = jnp.asarray(self.start)
        self.first = nn.Dense(self.width)
        self.cell = nn.GRUCell(self.width)
        shape = (self.width, self.num_factors)
        self.directions = self.param("factors", nn.initializers.lecun_normal(), shape)
        self.rates = nn.Dense(
            self.num_units, bias_init=lambda key, shape, dtype: bias.astype(dtype)
        )

    def begin(self, z: Array) -> Array:
        """The state before the first step, [width]."""
        return self.first(z)

    def step(self, state: Array, inputs: Array) -> Array:
        """The state that follows."""
        return self.cell(state, inputs)[0]

    def factors(self, states: Array) -> Array:
        """[..., F] of states [..., width]."""
        return states @ (self.directions / jnp.linalg.norm(self.directions, axis=0))

    def predictors(self, factors: Array) -> Array:
        """[..., N] of factors [..., F]."""
        return self.rates(factors)

    def __call__(self, z: Array, inputs: Array) -> Array:
        """All layers once, to initialise them."""
        return self.predictors(self.factors(self.step(self.begin(z), inputs)))


class Controller(nn.Module):
    """Gated recurrent units that are given the encoder's output and the factors of the step before;
    the shift of the mean and the log variance of each input, from the prior's, start small.
    """

    width: int
    num_inputs: int

    @nn.compact
    def __call__(self, state: Array, encoded: Array, factors: Array) -> tuple[Array, Array]:
        """The state that follows, and shift and log variance [2 U]."""
        given = jnp.concatenate([encoded, factors])
        state = nn.GRUCell(self.width)(state, given)[0]
        return state, nn.Dense(2 * self.num_inputs, kernel_init=_small)(state)


class Networks(NamedTuple):
    """Modules; no parameters."""

    generator: Generator
    controller: Controller


class Steps(NamedTuple):
    """Inputs of a trial and what the guide said of each, leaves [T, U]."""

    inputs: Array
    shift: Array  # of the guide's mean from the prior's, given the input before
    variance: Array


def init(networks: Networks, key: Array, num_latents: int, num_encoded: int) -> Params:
    """{"generator", "controller", "inputs"}."""
    (key_generator, key_controller) = jax.random.split(key)
    (generator, controller) = networks
    num_inputs = controller.num_inputs
    given = (
        jnp.zeros(controller.width),
        jnp.zeros(num_encoded),
        jnp.zeros(generator.num_factors),
    )
    z = jnp.zeros(num_latents)
    return {
        "generator": generator.init(key_generator, z, jnp.zeros(num_inputs))["params"],
        "controller": controller.init(key_controller, *given)["params"],
        "inputs": {
            "log_steps": jnp.full(num_inputs, math.log(START_STEPS), z.dtype),
            "log_variance": jnp.full(num_inputs, math.log(START_VARIANCE), z.dtype),
        },
    }


def decay_of(inputs: Params) -> Array:
    """exp(-1 / steps), the correlation of an input with the one before, [U]."""
    return jnp.exp(-jnp.exp(-inputs["log_steps"]))


def noise_of(inputs: Params, num_steps: int) -> Array:
    """The prior's variance of each input given the one before, [T, U]; stationary."""
    variance = jnp.exp(inputs["log_variance"])
    later = variance * (1.0 - decay_of(inputs) ** 2)
    rest = jnp.broadcast_to(later, (num_steps - 1, len(variance)))
    return jnp.concatenate([variance[None], rest])


def follow(
    networks: Networks,
    params: Params,
    encoded: Array,
    is_there: Array,
    z: Array,
    given: Array,
    *,
    is_noise: bool,
) -> Steps:
    """Generator and controller side by side over T steps.

    Args:
      networks, params: of the model.
      encoded: of each step, [T, E].
      is_there: steps of the trial, bool [T]; at others the guide is the prior.
      z: the generator's start, [D].
      given: [T, U], standard normal noise, of which inputs are made, or inputs.
      is_noise: which of them.
    """
    (generator, controller) = networks
    of_generator: Any = partial(generator.apply, {"params": params["generator"]})
    of_controller: Any = partial(controller.apply, {"params": params["controller"]})
    decay = decay_of(params["inputs"])
    noise = noise_of(params["inputs"], encoded.shape[0])

    def step(carry: Any, at: tuple[Array, ...]) -> tuple[Any, Steps]:
        (state, follower, before) = carry
        (encoded, is_there, noise, given) = at
        factors = of_generator(state, method="factors")
        follower, said = of_controller(follower, encoded, factors)
        shift, log_variance = jnp.split(jnp.where(is_there, said, 0.0), 2)
        least = jnp.where(is_there, MIN_VARIANCE, 0.0)
        variance = noise * jnp.exp(log_variance) + least
        drawn = decay * before + shift + jnp.sqrt(variance) * given
        inputs = drawn if is_noise else given
        state = of_generator(state, inputs, method="step")
        return (state, follower, inputs), Steps(inputs, shift, variance)

    start = of_generator(z, method="begin")
    nothing = jnp.zeros(controller.num_inputs, z.dtype)
    first = (start, jnp.zeros(controller.width, z.dtype), nothing)
    return jax.lax.scan(step, first, (encoded, is_there, noise, given))[1]


def kl_of(params: Params, steps: Steps) -> Array:
    """KL of each input from its prior given the input before, summed over steps, nats, [U]; of
    steps that are not there it is 0.
    """
    noise = noise_of(params["inputs"], steps.inputs.shape[0])
    ratio = steps.variance / noise
    return 0.5 * (ratio - 1.0 - jnp.log(ratio) + steps.shift**2 / noise).sum(0)


def decode(networks: Networks, params: Params, z: Array, inputs: Array) -> tuple[Array, Array]:
    """Predictors [T, N] and factors [T, F]."""
    generator = networks.generator
    of_generator: Any = partial(generator.apply, {"params": params["generator"]})

    def step(state: Array, inputs: Array) -> tuple[Array, Array]:
        state = of_generator(state, inputs, method="step")
        return state, state

    _, states = jax.lax.scan(step, of_generator(z, method="begin"), inputs)
    factors = of_generator(states, method="factors")
    return of_generator(factors, method="predictors"), factors
