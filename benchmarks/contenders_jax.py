"""The same model written by hand in JAX, as one would without a library, and its matrix products
alone.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.problem import (
    LEARNING_RATE,
    Contender,
    HostOrder,
    Problem,
    Running,
    Weights,
    binarise,
)
from vi_jax.models._convolution import convolution, transposed_convolution

Array = jax.Array
Params = dict[str, Array]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, w: Array) -> Array:
    """A convolution of stride 2, padding SAME, as one would write it in JAX."""
    return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)


def transpose(x: Array, w: Array) -> Array:
    """The transposed convolution of stride 2."""
    return jax.lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)


def encode(
    problem: Problem, params: Params, x: Array, activation: Any, convolve: Any = convolve
) -> Array:
    """Location and log scale of a batch x [B, *x_shape], [B, 2 D]; without a bias where there is
    none in `params`.
    """
    h = x
    for i in range(len(problem.hidden)):
        if problem.conv:
            h = convolve(h, params[f"e{i}w"])
        else:
            h = h @ params[f"e{i}w"]
        h = activation(h + params.get(f"e{i}b", 0.0))
    last = f"e{len(problem.hidden)}"
    return h.reshape(len(x), -1) @ params[f"{last}w"] + params.get(f"{last}b", 0.0)


def decode(
    problem: Problem, params: Params, z: Array, activation: Any, transpose: Any = transpose
) -> Array:
    """Logits of a batch z [M, D], [M, *x_shape]."""
    last = len(problem.hidden)
    h = z @ params["d0w"] + params.get("d0b", 0.0)
    if problem.conv:
        h = h.reshape(len(z), *problem.smallest, -1)
    for i in range(1, last + 1):
        h = activation(h)
        if problem.conv:
            h = transpose(h, params[f"d{i}w"])
        else:
            h = h @ params[f"d{i}w"]
        h = h + params.get(f"d{i}b", 0.0)
    if problem.conv:
        height, width, _ = problem.x_shape
        h = h[:, :height, :width]
    return h


def _activation(problem: Problem) -> Any:
    return jax.nn.gelu if problem.conv else jnp.tanh


def hand_loss(problem: Problem, params: Params, key: Array, x: Array) -> Array:
    """-ELBO per example of a batch x [B, *x_shape] with the KL in closed form, or for K > 1
    -IWAE.
    """
    loc, log_scale = jnp.split(encode(problem, params, x, _activation(problem)), 2, axis=1)
    k = problem.num_samples
    shape = loc.shape
    eps = jax.random.normal(key, shape if k == 1 else (k, *shape))
    z = loc + jnp.exp(log_scale) * eps  # [B, D] or [K, B, D]
    logits = decode(problem, params, z.reshape(-1, shape[1]), _activation(problem)).reshape(
        *z.shape[:-1], -1
    )
    x = x.reshape(len(x), -1)
    log_lik = jnp.sum(x * logits - jax.nn.softplus(logits), -1)
    if k == 1:
        kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 2 * log_scale - 1)
        return (kl - log_lik.sum()) / len(x)
    log_ratio = 0.5 * jnp.sum(eps**2 - z**2 + 2 * log_scale, -1)  # log p(z) - log q(z)
    return -jnp.mean(jax.nn.logsumexp(log_lik + log_ratio, axis=0) - math.log(k))


def hand_step(problem: Problem, carry: Any, key: Array, data: Array, rows: Array) -> Any:
    """Gathers, binarises, differentiates, and lets Adam step; carry: params, Adam's state, step,
    sum of losses.
    """
    params, opt_state, step, total = carry
    key_x, key_z = jax.random.split(jax.random.fold_in(key, step))
    loss, gradient = jax.value_and_grad(partial(hand_loss, problem))(
        params, key_z, binarise(key_x, data[rows])
    )
    updates, opt_state = optax.adam(LEARNING_RATE).update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state, step + 1, total + loss


def hand_start(problem: Problem, weights: Weights) -> tuple[Any, Array, Array]:
    """The first carry, the run's key, and the data on the device."""
    params = jax.tree.map(jnp.asarray, weights)
    carry = (params, optax.adam(LEARNING_RATE).init(params), jnp.int32(0), jnp.float32(0))
    return carry, jax.random.key(1), jnp.asarray(problem.pixels)


class _Draws:
    """loss(x) of a fresh key each time."""

    def __init__(self, loss: Any) -> None:
        self._loss = jax.jit(loss)
        self._key = jax.random.key(2)

    def __call__(self, params: Any, x: Any) -> float:
        self._key, key = jax.random.split(self._key)
        return float(self._loss(params, key, jnp.asarray(x)))


def start_hand_loop(problem: Problem, weights: Weights) -> Running:
    """The smallest loop that trains this model: nothing is measured but the loss, an epoch's order
    is drawn once.
    """
    carry, key, data = hand_start(problem, weights)
    num_batches = problem.batches_per_epoch
    draws = _Draws(partial(hand_loss, problem))

    @jax.jit
    def shuffle(epoch: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, -1 - epoch), len(data))
        return jnp.resize(order, (num_batches, problem.batch_size))

    @partial(jax.jit, donate_argnums=0)
    def run(carry: Any, data: Array, order: Array, first: Array, num_steps: Array) -> Any:
        def one(i: Array, carry: Any) -> Any:
            return hand_step(problem, carry, key, data, order[i])

        return jax.lax.fori_loop(first, first + num_steps, one, carry)

    done = 0
    order = shuffle(0)

    def steps(num_steps: int) -> float:
        nonlocal carry, done, order
        before = float(carry[-1])
        last = done + num_steps
        while done < last:
            first = done % num_batches
            if first == 0:
                order = shuffle(done // num_batches)
            now = min(problem.block, num_batches - first, last - done)
            carry = run(carry, data, order, first, now)
            done += now
        return (before - float(carry[-1])) / num_steps

    return Running(steps, lambda x: draws(carry[0], x))


def start_hand_jit(problem: Problem, weights: Weights) -> Running:
    """The same step, jitted, under a Python loop; rows shuffled by numpy, pixels gathered on the
    device.
    """
    carry, key, data = hand_start(problem, weights)
    step = jax.jit(partial(hand_step, problem), donate_argnums=0)
    order = HostOrder(problem)
    draws = _Draws(partial(hand_loss, problem))

    def steps(num_steps: int) -> float:
        nonlocal carry
        before = float(carry[-1])
        for _ in range(num_steps):
            carry = step(carry, key, data, order.next())
        return (before - float(carry[-1])) / num_steps

    return Running(steps, lambda x: draws(carry[0], x))


def products(problem: Problem, kernels: Params, x: Array) -> Params:
    """A step's matrix products or convolutions, forwards and backwards, and nothing else.

    The gradient of |decode(encode(x))|^2 / 2 in the kernels, without biases, activations or sums;
    for K > 1 the decoder has K copies. Convolutions are in the form of vi_jax, which is faster than
    lax's on a CPU.
    """
    shape = (problem.num_samples, len(x), problem.num_latents)
    halving = partial(convolution, strides=(2, 2))
    doubling = partial(transposed_convolution, strides=(2, 2))

    def through(kernels: Params) -> Array:
        z = encode(problem, kernels, x, lambda h: h, halving)[:, : problem.num_latents]
        copies = jnp.broadcast_to(z, shape).reshape(-1, shape[2])
        return decode(problem, kernels, copies, lambda h: h, doubling)

    out, back = jax.vjp(through, kernels)
    return back(out)[0]  # the outputs stand for their own gradient: any array of that shape


def start_products(problem: Problem, weights: Weights) -> Running:
    """`products` in a loop; gradients are carried out of it, so that none can be removed, and each
    step has another x.
    """
    kernels = {name: jnp.asarray(value) for name, value in weights.items() if name.endswith("w")}
    pool = np.resize(problem.pixels, (16, problem.batch_size, *problem.x_shape)) / np.float32(255)

    def one(i: Array, _: Params, kernels: Params, pool: Array) -> Params:
        return products(problem, kernels, pool[i % 16])

    @partial(jax.jit, donate_argnums=0)
    def run(gradients: Params, kernels: Params, pool: Array, num_steps: int) -> Params:
        return jax.lax.fori_loop(0, num_steps, lambda i, g: one(i, g, kernels, pool), gradients)

    gradients = jax.tree.map(jnp.zeros_like, kernels)
    pool = jnp.asarray(pool)

    def steps(num_steps: int) -> float:
        nonlocal gradients
        for _ in range(num_steps // problem.block):
            gradients = run(gradients, kernels, pool, problem.block)
        jax.block_until_ready(gradients)
        return math.nan

    return Running(steps, None)


HAND_LOOP = Contender(
    "hand-written loop", "the step written out in JAX, `fori_loop` in one program", start_hand_loop
)
HAND_JIT = Contender(
    "hand-written jit loop", "that step jitted, called from Python", start_hand_jit
)
PRODUCTS = Contender(
    "matrix products alone",
    "those of a step, or its convolutions, and nothing else",
    start_products,
)
