"""NumPyro's SVI on the same VAE, `TraceMeanField_ELBO` for the KL in closed form, both ways its documentation trains.

The parameters are registered by `flax_module` and the optimiser is optax's Adam. NumPyro's loss is a sum over the
batch; Adam does not see the scale.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.module import flax_module
from numpyro.infer import SVI, TraceMeanField_ELBO

from benchmarks.problem import LEARNING_RATE, Contender, HostOrder, Problem, binarise

Array = jax.Array
_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


def make_svi(problem: Problem) -> SVI:
    """Model and guide of a batch x [B, num_pixels]."""
    hidden, latents = problem.num_hidden, problem.num_latents
    encoder = nn.Sequential([nn.Dense(hidden), nn.tanh, nn.Dense(2 * latents, kernel_init=_small)])
    decoder = nn.Sequential([nn.Dense(hidden), nn.tanh, nn.Dense(problem.num_pixels)])

    def model(x: Array) -> None:
        decode = flax_module("decoder", decoder, input_shape=(1, latents))
        with numpyro.plate("batch", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latents), jnp.ones(latents)).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x: Array) -> None:
        encode = flax_module("encoder", encoder, input_shape=(1, problem.num_pixels))
        loc, log_scale = jnp.split(encode(x), 2, axis=1)
        with numpyro.plate("batch", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return SVI(model, guide, optax.adam(LEARNING_RATE), TraceMeanField_ELBO())


def start_svi_jit(problem: Problem) -> Callable[[int], float]:
    """A jitted `svi.update` under a Python loop, as `SVI.run` trains with its progress bar."""
    svi, data, order, key = make_svi(problem), jnp.asarray(problem.pixels), HostOrder(problem), jax.random.key(1)
    state = svi.init(jax.random.key(0), binarise(key, data[: problem.batch_size]))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(state: Any, total: Array, data: Array, step: int, rows: Array) -> tuple[Any, Array]:
        state, loss = svi.update(state, binarise(jax.random.fold_in(key, step), data[rows]))
        return state, total + loss / problem.batch_size

    done = 0

    def steps(num_steps: int) -> float:
        nonlocal state, done
        total = jnp.float32(0)
        for _ in range(num_steps):
            state, total = update(state, total, data, done, order.next())
            done += 1
        return -float(total) / num_steps

    return steps


def start_svi_scan(problem: Problem) -> Callable[[int], float]:
    """`svi.update` in `lax.scan` over a block of rows, data on the device, as NumPyro's VAE example trains."""
    svi, data, order, key = make_svi(problem), jnp.asarray(problem.pixels), HostOrder(problem), jax.random.key(1)
    state = svi.init(jax.random.key(0), binarise(key, data[: problem.batch_size]))

    @partial(jax.jit, donate_argnums=0)
    def run(state: Any, data: Array, key: Array, rows: Array) -> tuple[Any, Array]:
        def one(state: Any, step: tuple[Array, Array]) -> tuple[Any, Array]:
            i, rows = step
            return svi.update(state, binarise(jax.random.fold_in(key, i), data[rows]))

        state, losses = jax.lax.scan(one, state, (jnp.arange(len(rows)), rows))
        return state, losses.mean()

    done = 0

    def steps(num_steps: int) -> float:
        nonlocal state, done
        total = 0.0
        for _ in range(num_steps // problem.block):
            rows = jnp.stack([order.next() for _ in range(problem.block)])
            state, loss = run(state, data, jax.random.fold_in(key, done), rows)
            done += problem.block
            total += float(loss)
        return -total * problem.block / num_steps / problem.batch_size

    return steps


NUMPYRO_JIT = Contender("NumPyro SVI, jit loop", "jitted `svi.update`, called from Python", start_svi_jit)
NUMPYRO_SCAN = Contender("NumPyro SVI, in a scan", "`svi.update` in `lax.scan`, blocks in one program", start_svi_scan)
