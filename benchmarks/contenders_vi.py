"""vi_jax as `experiments.train` runs it: its loop, its blocks, its checks, its binarisation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import vi_jax as vi
from benchmarks.problem import LEARNING_RATE, Contender, Problem, Running, Weights
from experiments.build import binarise

# here, for the start-up times leave imports out
from vi_jax import bounds, estimators, families, losses, models, training
from vi_jax.models import likelihoods, networks


def make_model(problem: Problem, dtype: Any = None) -> vi.Model:
    """The model of a problem."""
    shape = problem.x_shape
    hidden = problem.hidden
    latents = problem.num_latents
    if not problem.conv:
        return models.vae(shape, num_latents=latents, hidden=hidden, dtype=dtype)
    return models.amortised(
        shape,
        lambda size: networks.conv_encoder(shape, size, hidden, dtype=dtype),
        lambda size: networks.conv_decoder(shape, size, latents, hidden[::-1], dtype=dtype),
        families.mean_field(latents),
        likelihoods.bernoulli(),
        num_latents=latents,
    )


def make_loss(problem: Problem, model: vi.Model) -> losses.Loss:
    """-ELBO with its KL in closed form, or -IWAE."""
    if problem.num_samples == 1:
        return losses.negative_elbo(model)
    return losses.negative_bound(
        model, bounds.iwae, estimators.reparam, num_samples=problem.num_samples, name="elbo"
    )


def to_params(problem: Problem, weights: Weights) -> vi.types.Params:
    """The weights as `models` names them."""
    layers = len(problem.hidden)
    if problem.conv:
        encoder = [*(f"Conv_{i}" for i in range(layers)), "Dense_0"]
        decoder = ["Dense_0", *(f"ConvTranspose_{i}" for i in range(layers))]
    else:
        encoder = decoder = [f"Dense_{i}" for i in range(layers + 1)]

    def part(letter: str, names: list[str]) -> dict[str, dict[str, jax.Array]]:
        found = {
            name: (weights[f"{letter}{i}w"], weights[f"{letter}{i}b"])
            for i, name in enumerate(names)
        }
        return {
            name: {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)}
            for name, (w, b) in found.items()
        }

    return {"encoder": part("e", encoder), "decoder": part("d", decoder), "likelihood": {}}


def start_vi_jax(problem: Problem, weights: Weights, dtype: Any = None) -> Running:
    """`vi.make_run`, as `experiments.train` has it."""
    data = jnp.asarray(problem.pixels)
    optimizer = optax.adam(LEARNING_RATE)
    loss = make_loss(problem, make_model(problem, dtype))
    prepare = lambda key, levels: binarise(key, levels, 256)  # noqa: E731
    step = vi.make_step(loss, optimizer, prepare=prepare, grad_norm_every=10)
    run = vi.make_run(step, batch_size=problem.batch_size)
    state = vi.init_state(jax.random.key(0), lambda key: to_params(problem, weights), optimizer)
    at = jax.jit(lambda params, key, x: loss(params, key, x, jnp.int32(0))[0])
    key = jax.random.key(2)

    def steps(num_steps: int) -> float:
        nonlocal state
        total = 0.0
        for _ in range(num_steps // problem.block):
            state, info = run(state, data, problem.block)
            training.check_finite(info)
            total += {name: float(value) for name, value in info.metrics.items()}["elbo"]
        return total * problem.block / num_steps

    def loss_of(x: Any) -> float:
        nonlocal key
        key, draw = jax.random.split(key)
        return float(at(state.params, draw, jnp.asarray(x)))

    return Running(steps, loss_of)


VI_JAX = Contender("vi_jax", "`vi.make_run`, blocks of steps in one program", start_vi_jax)
