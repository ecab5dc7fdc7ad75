"""NumPyro's SVI on the same VAE, both ways its documentation trains: `TraceMeanField_ELBO`, or for
IWAE `RenyiELBO` at alpha = 0.

The parameters are registered by `flax_module` and the optimiser is optax's Adam. NumPyro's loss is
a sum over the batch; Adam does not see the scale.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.module import flax_module
from numpyro.infer import SVI, RenyiELBO, TraceMeanField_ELBO

from benchmarks.contenders_flax import Decoder, Encoder, _Sizes, to_params
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


def make_svi(problem: Problem) -> SVI:
    """Model and guide of a batch x [B, *x_shape]."""
    latents = problem.num_latents
    sizes = _Sizes(problem)

    def model(x: Array) -> None:
        decode = flax_module("decoder", Decoder(sizes), input_shape=(1, latents))
        with numpyro.plate("batch", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latents), jnp.ones(latents)).to_event(1))
            numpyro.sample(
                "x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x.reshape(len(x), -1)
            )

    def guide(x: Array) -> None:
        encode = flax_module("encoder", Encoder(sizes), input_shape=(1, *problem.x_shape))
        loc, log_scale = jnp.split(encode(x), 2, axis=1)
        with numpyro.plate("batch", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    k = problem.num_samples
    return SVI(
        model,
        guide,
        optax.adam(LEARNING_RATE),
        TraceMeanField_ELBO() if k == 1 else RenyiELBO(0, num_particles=k),
    )


def _start(problem: Problem, weights: Weights) -> tuple[SVI, Any, Array, HostOrder, Any]:
    """The SVI, its first state, the data on the device, the order of the rows, and the loss of some
    x at a state.
    """
    svi = make_svi(problem)
    data = jnp.asarray(problem.pixels)
    params = {f"{name}$params": to_params(weights, name[0]) for name in ("encoder", "decoder")}
    state = svi.init(
        jax.random.key(0),
        binarise(jax.random.key(1), data[: problem.batch_size]),
        init_params=params,
    )
    evaluate = jax.jit(svi.evaluate)
    keys = iter(jax.random.split(jax.random.key(2), 1_000))

    def loss(state: Any, x: Any) -> float:
        return float(evaluate(state._replace(rng_key=next(keys)), jnp.asarray(x))) / len(x)

    return svi, state, data, HostOrder(problem), loss


def start_svi_jit(problem: Problem, weights: Weights) -> Running:
    """Jitted `svi.update` in a Python loop, as `SVI.run` trains with its progress bar: its losses
    in a list, fetched in blocks.
    """
    svi, state, data, order, loss = _start(problem, weights)
    key = jax.random.key(1)

    @jax.jit
    def update(state: Any, data: Array, step: int, rows: Array) -> tuple[Any, Array]:
        return svi.update(state, binarise(jax.random.fold_in(key, step), data[rows]))

    done = 0

    def steps(num_steps: int) -> float:
        nonlocal state, done
        total = 0.0
        for _ in range(num_steps // problem.block):
            losses = []
            for _ in range(problem.block):
                state, value = update(state, data, done, order.next())
                losses.append(value)
                done += 1
            total += float(sum(jax.device_get(losses)))
        return -total / num_steps / problem.batch_size

    return Running(steps, lambda x: loss(state, x))


def start_svi_scan(problem: Problem, weights: Weights) -> Running:
    """`svi.update` in `lax.scan` over a block of rows, data on the device, as NumPyro's VAE example
    trains.
    """
    svi, state, data, order, loss = _start(problem, weights)
    key = jax.random.key(1)

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
            state, mean = run(state, data, jax.random.fold_in(key, done), rows)
            done += problem.block
            total += float(mean)
        return -total * problem.block / num_steps / problem.batch_size

    return Running(steps, lambda x: loss(state, x))


NUMPYRO_JIT = Contender(
    "NumPyro SVI, jit loop", "jitted `svi.update`, called from Python", start_svi_jit
)
NUMPYRO_SCAN = Contender(
    "NumPyro SVI, in a scan", "`svi.update` in `lax.scan`, blocks in one program", start_svi_scan
)
