"""Variational diffusion: ever noisier copies of x, undone step by step (Kingma et al. 2021)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.models import likelihoods
from vi_jax.models._emission import check_shape
from vi_jax.models._noise import (
    NoisyPath,
    ReversePath,
    diffusion_loss,
    gamma_at,
    gammas,
    prior_kl,
    signal_and_noise,
)
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Densities, Drawn, Model, Params, Terms

_LAST_GAMMA = 5.0  # minus the log signal-to-noise ratio at t = 1, at the start
_FREQUENCIES = 6  # of gamma, for the network


def diffusion(
    x_shape: Sequence[int],
    num_levels: int,
    *,
    hidden: Sequence[int] = (256, 256, 256),
    num_steps: int = 32,
    num_times: int = 1,
    likelihood: Likelihood | None = None,
) -> Model:
    """z_t = alpha_t x + sigma_t e, 0 <= t <= 1, with alpha^2 = sigmoid(-gamma), sigma^2 =
    sigmoid(gamma) and gamma linear in t, its ends trained (Kingma et al. 2021).

        ELBO = E log p(x | z_0) - KL(q(z_1 | x) || N(0, I)) - L,
        L = 1/2 (gamma_1 - gamma_0) E |e - e^(z_t, t)|^2,

    the bound in continuous time (eq. 17). Pixel values are levels, brought to [-1, 1], and p(x |
    z_0) is the probability of each level that q(z_0 | x) implies (sec. 3.3). The network goes
    by v = alpha e - sigma x (Salimans & Ho 2022), of which e^ = sigma z + alpha v. It adds to the v
    of E[x | z] of each pixel by itself, its levels equally likely, which is all there is to know
    where the noise is small; the paper has Fourier features for that (appendix C).

    The times of one example are spread evenly from a random start, as the paper's of a batch are.
    `densities` are those of the same model in `num_steps` finite steps, z_0 .. z_T as one array [T
    + 1, *x_shape]: q(z | x) and p(z) are chains. Their ELBO falls below that of `terms`, less so
    with more steps; samples and log p(x) by importance sampling are by them.

    Args:
      x_shape: of one example.
      num_levels: L; x are whole numbers 0..L - 1.
      hidden: widths of the residual layers of the network.
      num_steps: T of the chain.
      num_times: times of an example at each draw of the terms.
      likelihood: `categorical(num_levels)`, which the config names so that x are levels.

    Returns:
      A Model of parameters {"network", "gamma"}.

    Raises:
      ValueError: a size is not positive, or the likelihood is another one.
    """
    shape = tuple(x_shape)
    if min(num_levels - 1, num_steps, num_times, *hidden, *shape) < 1 or not hidden:
        raise ValueError(
            "diffusion expects positive sizes and at least 2 levels; got x_shape "
            f"{shape}, num_levels {num_levels}, hidden {tuple(hidden)}, num_steps {num_steps}, "
            f"num_times {num_times}."
        )
    of_x = likelihoods.categorical(num_levels) if likelihood is None else likelihood
    if of_x.support != "levels" or of_x.num_outputs != num_levels:
        raise ValueError(
            "diffusion expects the likelihood categorical, whose probabilities it takes from z_0; "
            f"got one of {of_x.num_outputs} outputs of support {of_x.support!r}."
        )
    parts = _Parts(shape, num_levels, _Network(tuple(hidden), shape), of_x, num_steps, num_times)
    densities = Densities(parts.guide, parts.prior, parts.decode, parts.log_lik)
    return Model(parts.init, parts.terms, parts.generate, densities)


class _Parts(NamedTuple):
    """What a diffusion model is made of."""

    x_shape: tuple[int, ...]
    num_levels: int
    network: "_Network"
    of_x: Likelihood  # by the logits of the levels
    num_steps: int
    num_times: int

    def init(self, key: Array) -> Params:
        inputs = (jnp.zeros((2, *self.x_shape)), jnp.zeros(()))
        variables = jax.jit(self.network.init)(key, *inputs)
        first = 2.0 * math.log(0.5 / (self.num_levels - 1))  # a noise of a quarter of a level
        return {
            "network": variables["params"],
            "gamma": {
                "first": jnp.full((), first, jnp.float32),
                "log_span": jnp.full((), math.log(_LAST_GAMMA - first), jnp.float32),
            },
        }

    def denoise(self, params: Params, z: Array, gamma_t: Array) -> Array:
        """v, at which the network's is 0 where each pixel by itself is all there is to know."""
        alpha, sigma = signal_and_noise(gamma_t)
        levels = jnp.linspace(-1.0, 1.0, self.num_levels)
        chances = jax.nn.softmax(-0.5 * ((z[..., None] - alpha * levels) / sigma) ** 2)
        alone = chances @ levels  # E[x | z] of a pixel whose levels are equally likely
        inputs = jnp.stack([z, alone])
        besides: Any = self.network.apply({"params": params}, inputs, gamma_t)
        return (alpha * z - alone) / sigma + besides

    def value_of(self, x: Array) -> Array:
        """Levels as numbers in [-1, 1]."""
        check_shape(x, self.x_shape)
        return 2.0 * x.astype(jnp.float32) / (self.num_levels - 1) - 1.0

    def pixels(self, params: Params, z_0: Array) -> Any:
        """p(x | z_0), by which level q(z_0 | x) makes likely."""
        alpha, sigma = signal_and_noise(gamma_at(params["gamma"], 0.0))
        levels = jnp.linspace(-1.0, 1.0, self.num_levels)
        return self.of_x.make({}, -0.5 * ((z_0[..., None] - alpha * levels) / sigma) ** 2)

    def terms(self, key: Array, params: Params, x: Array) -> Terms:
        """The bound in continuous time, at one z_0 and at `num_times` times."""
        key_0, key_t = jax.random.split(key)
        gamma = params["gamma"]
        value = self.value_of(x)
        alpha, sigma = signal_and_noise(gamma_at(gamma, 0.0))
        z_0 = alpha * value + sigma * jax.random.normal(key_0, self.x_shape)
        loss = diffusion_loss(key_t, self.denoise, params["network"], gamma, value, self.num_times)
        kl = {"prior": prior_kl(gamma, value), "diffusion": Drawn(loss)}
        return Terms(self.pixels(params, z_0).log_prob(x).sum(), kl)

    def guide(self, params: Params, x: Array) -> NoisyPath:
        return NoisyPath(self.value_of(x), gammas(params["gamma"], self.num_steps))

    def prior(self, params: Params, x: Array) -> ReversePath:
        del x
        steps = gammas(params["gamma"], self.num_steps)
        return ReversePath(params["network"], steps, self.x_shape, self.denoise)

    def decode(self, params: Params, x: Array, z: Array) -> Any:
        """p(x | z), by z_0."""
        del x
        return self.pixels(params, z[0])

    def log_lik(self, params: Params, x: Array, z: Array) -> Array:
        """log p(x | z), nats."""
        return self.pixels(params, z[0]).log_prob(x).sum()

    def generate(self, key: Array, params: Params, x: Array) -> Any:
        """p(x | z) at a z of the chain."""
        return self.decode(params, x, self.prior(params, x).sample(key))


class _Network(nn.Module):
    """What v is besides, of z and what each pixel says by itself, [2, *x_shape], and gamma, by
    residual dense layers; 0 at the start.
    """

    hidden: tuple[int, ...]
    x_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array, gamma_t: Array) -> Array:
        t = 0.05 * gamma_t  # within -1 .. 1
        angles = jnp.pi * t * 2.0 ** jnp.arange(_FREQUENCIES)
        of_time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), t[None]])
        h = nn.Dense(self.hidden[0])(z.ravel())
        for width in self.hidden:
            inner = nn.Dense(width)(nn.silu(nn.LayerNorm()(h))) + nn.Dense(width)(of_time)
            h = h + nn.Dense(h.shape[-1])(nn.silu(inner))
        size = math.prod(self.x_shape)
        last = nn.Dense(size, kernel_init=nn.initializers.zeros_init())
        return last(nn.silu(nn.LayerNorm()(h))).reshape(self.x_shape)
