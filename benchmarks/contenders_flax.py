"""The VAE in the style of Flax's own example: modules of a batch, a TrainState, a jitted step,
batches from the host.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from benchmarks.problem import (
    LEARNING_RATE,
    Contender,
    HostOrder,
    Problem,
    Running,
    Weights,
    binarise,
)

Array = jax.Array


class Encoder(nn.Module):
    """x [B, *x_shape] -> location and log scale, [B, 2 D]."""

    problem: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        p = self.problem
        h = x
        for i, width in enumerate(p.hidden):
            layer: Any = (
                nn.Conv(width, (3, 3), strides=2, name=f"e{i}")
                if p.conv
                else nn.Dense(width, name=f"e{i}")
            )
            h = (nn.gelu if p.conv else nn.tanh)(layer(h))
        return nn.Dense(2 * p.num_latents, name=f"e{len(p.hidden)}")(h.reshape(len(x), -1))


class Decoder(nn.Module):
    """z [M, D] -> logits [M, pixels]."""

    problem: Any

    @nn.compact
    def __call__(self, z: Array) -> Array:
        p = self.problem
        last = len(self.problem.hidden)
        if not p.conv:
            h = z
            for i, width in enumerate(p.hidden[::-1]):
                h = nn.tanh(nn.Dense(width, name=f"d{i}")(h))
            return nn.Dense(p.x_shape[0], name=f"d{last}")(h)
        height, width, channels = p.x_shape
        h = nn.Dense(math.prod(p.smallest) * p.hidden[-1], name="d0")(z)
        h = h.reshape(len(z), *p.smallest, -1)
        for i, features in enumerate((*p.hidden[-2::-1], channels)):
            h = nn.ConvTranspose(features, (3, 3), strides=(2, 2), name=f"d{i + 1}")(nn.gelu(h))
        return h[:, :height, :width].reshape(len(z), -1)


def to_params(weights: Weights, letter: str) -> dict[str, Any]:
    """The weights of the encoder, `e`, or the decoder, `d`, as these modules name them."""
    names = sorted({name[:-1] for name in weights if name[0] == letter})
    return {
        name: {"kernel": jnp.asarray(weights[f"{name}w"]), "bias": jnp.asarray(weights[f"{name}b"])}
        for name in names
    }


def make_loss(problem: Problem) -> Any:
    """(params, key, x [B, *x_shape]) -> loss."""
    fixed = _Sizes(problem)
    encoder = Encoder(fixed)
    decoder = Decoder(fixed)

    def loss_of(params: Any, key: Array, x: Array) -> Array:
        loc, log_scale = jnp.split(encoder.apply({"params": params["e"]}, x), 2, axis=1)
        k = problem.num_samples
        eps = jax.random.normal(key, loc.shape if k == 1 else (k, *loc.shape))
        z = loc + jnp.exp(log_scale) * eps
        logits = decoder.apply({"params": params["d"]}, z.reshape(-1, loc.shape[1])).reshape(
            *z.shape[:-1], -1
        )
        log_lik = -optax.sigmoid_binary_cross_entropy(
            logits, jnp.broadcast_to(x.reshape(len(x), -1), logits.shape)
        ).sum(-1)
        if k == 1:
            kl = -0.5 * jnp.sum(1 + 2 * log_scale - loc**2 - jnp.exp(2 * log_scale), axis=1)
            return jnp.mean(kl - log_lik)
        log_ratio = 0.5 * jnp.sum(eps**2 - z**2 + 2 * log_scale, -1)
        return -jnp.mean(jax.nn.logsumexp(log_lik + log_ratio, axis=0) - jnp.log(k))

    return loss_of


class _Sizes:
    """What the modules ask of a problem; hashable, as Flax wants a field to be."""

    def __init__(self, problem: Problem) -> None:
        self.x_shape = problem.x_shape
        self.hidden = problem.hidden
        self.num_latents = problem.num_latents
        self.conv = problem.conv
        self.smallest = problem.smallest if problem.conv else ()


def start_flax(problem: Problem, weights: Weights) -> Running:
    """`TrainState.apply_gradients` in a jitted step under a Python loop; pixels gathered by numpy
    on the host.
    """
    loss_of = make_loss(problem)
    order = HostOrder(problem)
    params = {letter: to_params(weights, letter) for letter in "ed"}
    state = TrainState.create(apply_fn=loss_of, params=params, tx=optax.adam(LEARNING_RATE))
    at = jax.jit(loss_of)
    key = jax.random.key(2)

    @jax.jit
    def train_step(state: TrainState, pixels: Array, key: Array) -> tuple[TrainState, Array]:
        key_x, key_z = jax.random.split(key)
        loss, gradient = jax.value_and_grad(loss_of)(state.params, key_z, binarise(key_x, pixels))
        return state.apply_gradients(grads=gradient), loss

    def steps(num_steps: int) -> float:
        nonlocal state, key
        total = jnp.float32(0)
        for _ in range(num_steps):
            key, draw = jax.random.split(key)
            state, loss = train_step(state, problem.pixels[order.next()], draw)
            total += loss
        return -float(total) / num_steps

    def loss_at(x: Any) -> float:
        nonlocal key
        key, draw = jax.random.split(key)
        return float(at(state.params, draw, jnp.asarray(x)))

    return Running(steps, loss_at)


_HOW = "`TrainState` and a jitted step, called from Python, batches from the host"
FLAX = Contender("Flax example", _HOW, start_flax)
