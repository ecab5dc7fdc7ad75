"""vi_jax as its users get it, the same model written by hand, and the matrix products alone."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vi_jax as vi
from benchmarks.problem import LEARNING_RATE, Contender, HostOrder, Problem, binarise
from vi_jax import losses, models, training  # here, for the start-up times leave imports out

Array = jax.Array
Params = dict[str, Array]


def start_vi_jax(problem: Problem) -> Callable[[int], float]:
    """The compiled loop of `vi.make_run`, in the blocks and with the checks of `vi.train`."""
    data = jnp.asarray(problem.pixels)
    model = models.vae((problem.num_pixels,), num_latents=problem.num_latents, hidden=(problem.num_hidden,))
    optimizer = optax.adam(LEARNING_RATE)
    step = vi.make_step(losses.negative_elbo(model), optimizer, prepare=binarise, grad_norm_every=10)
    run = vi.make_run(step, batch_size=problem.batch_size)
    state = vi.init_state(jax.random.key(0), model.init, optimizer)

    def steps(num_steps: int) -> float:
        nonlocal state
        total = 0.0
        for _ in range(num_steps // problem.block):
            state, info = run(state, data, problem.block)
            training.check_finite(info)
            total += {name: float(value) for name, value in info.metrics.items()}["elbo"]
        return total * problem.block / num_steps

    return steps


def hand_init(problem: Problem, key: Array) -> Params:
    """Four dense layers in a dict, started as those of `vi.models.vae`."""
    num_pixels, hidden, latents = problem.num_pixels, problem.num_hidden, problem.num_latents
    shapes = [(num_pixels, hidden), (hidden, 2 * latents), (latents, hidden), (hidden, num_pixels)]
    params = {}
    for i, shape in enumerate(shapes):
        scale = (0.1 if i == 1 else 1.0) / shape[0] ** 0.5
        params[f"w{i}"] = scale * jax.random.normal(jax.random.fold_in(key, i), shape)
        params[f"b{i}"] = jnp.zeros(shape[1])
    return params


def hand_loss(params: Params, key: Array, x: Array) -> Array:
    """-ELBO per example of a batch x [B, num_pixels], the KL in closed form."""
    h = jnp.tanh(x @ params["w0"] + params["b0"])
    loc, log_scale = jnp.split(h @ params["w1"] + params["b1"], 2, axis=1)
    z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
    logits = jnp.tanh(z @ params["w2"] + params["b2"]) @ params["w3"] + params["b3"]
    log_lik = jnp.sum(x * logits - jax.nn.softplus(logits))
    kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 2 * log_scale - 1)
    return (kl - log_lik) / len(x)


def hand_step(carry: Any, key: Array, data: Array, rows: Array) -> Any:
    """Gathers, binarises, differentiates, and lets Adam step; carry: params, Adam's state, step, sum of losses."""
    params, opt_state, step, total = carry
    key_x, key_z = jax.random.split(jax.random.fold_in(key, step))
    loss, gradient = jax.value_and_grad(hand_loss)(params, key_z, binarise(key_x, data[rows]))
    updates, opt_state = optax.adam(LEARNING_RATE).update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state, step + 1, total + loss


def hand_start(problem: Problem) -> tuple[Any, Array, Array]:
    """The first carry, the run's key, and the data on the device."""
    key, key_init = jax.random.split(jax.random.key(0))
    params = jax.jit(partial(hand_init, problem))(key_init)
    carry = (params, optax.adam(LEARNING_RATE).init(params), jnp.int32(0), jnp.float32(0))
    return carry, key, jnp.asarray(problem.pixels)


def start_hand_loop(problem: Problem) -> Callable[[int], float]:
    """The smallest loop that trains this model: nothing is measured but the loss, an epoch's order is drawn once."""
    carry, key, data = hand_start(problem)
    num_batches = problem.batches_per_epoch

    @jax.jit
    def shuffle(epoch: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, -1 - epoch), len(data))
        return jnp.resize(order, (num_batches, problem.batch_size))

    @partial(jax.jit, donate_argnums=0)
    def run(carry: Any, data: Array, order: Array, first: Array, num_steps: Array) -> Any:
        def one(i: Array, carry: Any) -> Any:
            return hand_step(carry, key, data, order[i])

        return jax.lax.fori_loop(first, first + num_steps, one, carry)

    done, order = 0, shuffle(0)

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

    return steps


def start_hand_jit(problem: Problem) -> Callable[[int], float]:
    """The same step, jitted, under a Python loop; rows shuffled by numpy, pixels gathered on the device."""
    carry, key, data = hand_start(problem)
    step = jax.jit(hand_step, donate_argnums=0)
    order = HostOrder(problem)

    def steps(num_steps: int) -> float:
        nonlocal carry
        before = float(carry[-1])
        for _ in range(num_steps):
            carry = step(carry, key, data, order.next())
        return (before - float(carry[-1])) / num_steps

    return steps


def start_products(problem: Problem) -> Callable[[int], float]:
    """The 4 matrix products of a step forwards and the 7 backwards, and nothing else.

    Each hangs on the step's own inputs, and the weights' four gradients are carried out of the loop, so that none can
    be removed or hoisted. Trains nothing: returns nan.
    """
    w = [v for name, v in hand_init(problem, jax.random.key(0)).items() if name.startswith("w")]
    pool = jnp.asarray(problem.pixels[: 16 * problem.batch_size].reshape(16, problem.batch_size, -1) / 255, jnp.float32)

    @partial(jax.jit, donate_argnums=0)
    def run(gradients: list[Array], w: list[Array], pool: Array, num_steps: Array) -> list[Array]:
        def one(i: Array, _: list[Array]) -> list[Array]:
            x = pool[i % 16]
            h = x @ w[0]
            z = (h @ w[1])[:, : problem.num_latents]
            g = z @ w[2]
            d_logits = g @ w[3]  # stands for the logits' gradient: any matrix of its shape
            d_g = d_logits @ w[3].T
            d_z = d_g @ w[2].T
            d_q = jnp.concatenate([d_z, d_z], 1)
            return [x.T @ (d_q @ w[1].T), h.T @ d_q, z.T @ d_g, g.T @ d_logits]

        return jax.lax.fori_loop(0, num_steps, one, gradients)

    gradients = jax.tree.map(jnp.zeros_like, w)

    def steps(num_steps: int) -> float:
        nonlocal gradients
        for _ in range(num_steps // problem.block):
            gradients = run(gradients, w, pool, problem.block)
        jax.block_until_ready(gradients)
        return math.nan

    return steps


VI_JAX = Contender("vi_jax", "`vi.make_run`, blocks of steps in one program", start_vi_jax)
HAND_LOOP = Contender("hand-written loop", "the step written out in JAX, `fori_loop` in one program", start_hand_loop)
HAND_JIT = Contender("hand-written jit loop", "that step jitted, called from Python", start_hand_jit)
PRODUCTS = Contender("matrix products alone", "a step's 11 matrix products and nothing else", start_products)
