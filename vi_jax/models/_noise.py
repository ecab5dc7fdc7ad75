"""The noise of variational diffusion: its schedule, its loss, and chains of finite steps (Kingma et
al. 2021).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.types import Array, Params

Denoise = Callable[[Params, Array, Array], Array]  # (params, z_t, gamma_t) -> v [*x_shape]


def gamma_at(gamma: Params, t: Array | float) -> Array:
    """-log(alpha^2 / sigma^2) at a time."""
    return gamma["first"] + jnp.exp(gamma["log_span"]) * t


def gammas(gamma: Params, num_steps: int) -> Array:
    """Those of the times 0, 1/T .. 1, [T + 1]."""
    return gamma_at(gamma, jnp.linspace(0.0, 1.0, num_steps + 1))


def signal_and_noise(gamma: Array) -> tuple[Array, Array]:
    """alpha and sigma, whose squares add up to 1."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma)), jnp.exp(0.5 * jax.nn.log_sigmoid(gamma))


def prior_kl(gamma: Params, value: Array) -> Array:
    """KL(q(z_1 | x) || N(0, I)) by pixel, nats, [*x_shape]."""
    last = gamma_at(gamma, 1.0)
    variance = jax.nn.sigmoid(last)
    return 0.5 * (variance - 1.0 - jax.nn.log_sigmoid(last) + jax.nn.sigmoid(-last) * value**2)


def diffusion_loss(
    key: Array, denoise: Denoise, params: Params, gamma: Params, value: Array, num_times: int
) -> Array:
    """L at `num_times` times and noises, nats, a scalar (Kingma et al. 2021, eq. 17)."""
    key_t, key_noise = jax.random.split(key)
    start = jax.random.uniform(key_t)
    times = (start + jnp.arange(num_times) / num_times) % 1.0
    noises = jax.random.normal(key_noise, (num_times, *value.shape))

    def error(t: Array, noise: Array) -> Array:
        gamma_t = gamma_at(gamma, t)
        alpha, sigma = signal_and_noise(gamma_t)
        z = alpha * value + sigma * noise
        found = sigma * z + alpha * denoise(params, z, gamma_t)
        return ((noise - found) ** 2).sum()

    return 0.5 * jnp.exp(gamma["log_span"]) * jax.vmap(error)(times, noises).mean()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisyPath:
    """q(z_0 .. z_T | x), a chain from z_T down: z [T + 1, *x_shape]."""

    value: Array  # of x, [*x_shape]
    gammas: Array  # [T + 1], ascending

    @property
    def mean(self) -> Array:
        """alpha_t x, [T + 1, *x_shape]."""
        alpha, _ = signal_and_noise(self.gammas)
        return jnp.tensordot(alpha, self.value, 0)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Paths, [*sample_shape, T + 1, *x_shape], reparameterised."""
        shape = (*sample_shape, len(self.gammas), *self.value.shape)
        noise = jnp.moveaxis(jax.random.normal(key, shape), len(sample_shape), 0)
        alpha, sigma = signal_and_noise(self.gammas[-1])
        last = alpha * self.value + sigma * noise[-1]
        return _walk_down(last, noise[:-1], self.gammas, lambda z, t: self.value, len(sample_shape))

    def log_prob(self, value: Array) -> Array:
        """log q(z | x), nats, a scalar."""
        alpha, sigma = signal_and_noise(self.gammas[-1])
        last = dist.Normal(alpha * self.value, sigma).log_prob(value[-1]).sum()
        found = jnp.broadcast_to(self.value, value[1:].shape)
        return last + _log_steps(value, self.gammas, found)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReversePath:
    """p(z_0 .. z_T): z_T standard normal, and each step that of q at the x that the network finds
    in the noisier one.
    """

    params: Params  # of the network
    gammas: Array  # [T + 1], ascending
    x_shape: tuple[int, ...] = field(metadata={"static": True})
    denoise: Denoise = field(metadata={"static": True})

    def found(self, z: Array, number: Array) -> Array:
        """x^ = alpha z - sigma v in z at the time number / T."""
        gamma_t = self.gammas[number]
        alpha, sigma = signal_and_noise(gamma_t)
        return alpha * z - sigma * self.denoise(self.params, z, gamma_t)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Paths, [*sample_shape, T + 1, *x_shape], reparameterised."""
        num = math.prod(sample_shape)
        shape = (num, len(self.gammas), *self.x_shape)
        noise = jnp.moveaxis(jax.random.normal(key, shape), 1, 0)
        find = jax.vmap(self.found, (0, None))
        z = _walk_down(noise[-1], noise[:-1], self.gammas, find, 1)
        return z.reshape(*sample_shape, *z.shape[1:])

    def log_prob(self, value: Array) -> Array:
        """log p(z), nats, a scalar."""
        last = dist.Normal(0.0, 1.0).log_prob(value[-1]).sum()
        numbers = jnp.arange(1, len(self.gammas))
        found = jax.vmap(self.found)(value[1:], numbers)
        return last + _log_steps(value, self.gammas, found)


def _step(z: Array, x: Array, gamma_s: Array, gamma_t: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of q(z_s | z_t, x), s < t (Kingma et al. 2021, eq. 25 to 28)."""
    alpha_s, sigma_s = signal_and_noise(gamma_s)
    alpha_t, sigma_t = signal_and_noise(gamma_t)
    share = -jnp.expm1(gamma_s - gamma_t)
    mean = alpha_t / alpha_s * (sigma_s / sigma_t) ** 2 * z + alpha_s * share * x
    return mean, sigma_s * jnp.sqrt(share)


def _walk_down(
    last: Array,
    noise: Array,
    gammas: Array,
    find: Callable[[Array, Array], Array],
    axis: int,
) -> Array:
    """z_0 .. z_T along an axis, from z_T down, by noise [T, ...]; `find` (z_t, t T) -> x."""

    def down(z: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        number, noise = step
        mean, scale = _step(z, find(z, number), gammas[number - 1], gammas[number])
        below = mean + scale * noise
        return below, below

    numbers = jnp.arange(1, len(gammas))
    _, path = jax.lax.scan(down, last, (numbers, noise), reverse=True)
    return jnp.moveaxis(jnp.concatenate([path, last[None]]), 0, axis)


def _log_steps(z: Array, gammas: Array, found: Array) -> Array:
    """The log density of z_0 .. z_T-1, each given the next and the x that is found in it, nats."""

    def one(below: Array, above: Array, x: Array, gamma_s: Array, gamma_t: Array) -> Array:
        mean, scale = _step(above, x, gamma_s, gamma_t)
        return dist.Normal(mean, scale).log_prob(below).sum()

    return jax.vmap(one)(z[:-1], z[1:], found, gammas[:-1], gammas[1:]).sum()
