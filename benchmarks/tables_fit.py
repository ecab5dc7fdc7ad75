"""Fitting and measuring a mixture of models of a table for `benchmarks.tables`: all seeds in one
program, the step kept that has the best bound on validation rows, log p(x) and imputations by
importance sampling.

Parameters are {"parts": those of the model, [C, ...], "logits": [C]} of a mixture of C. Each part
has its own draws, so that the bound log (1/S) sum_cs pi_c w_cs is that of stratified sampling over
c (Morningstar et al. 2021, eq. 6).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.tables_model import Beliefs, Shape, penalty, started, table_model
from vi_jax import losses
from vi_jax.diagnostics import psis
from vi_jax.types import Array, Model, Params, select

BLOCK = 50  # steps between looks at the validation rows
CHUNK = 100  # importance samples at once


class Recipe(NamedTuple):
    """How a model is trained."""

    num_steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 5e-3
    num_samples: int = 5  # of the importance-weighted bound, for each part
    weight_decay: float = 1e-3
    ema_decay: float = 0.995
    num_validation: int = 50  # importance samples of the validation bound
    beliefs: Beliefs = Beliefs()
    is_stopped: bool = True  # kept at the best validation bound, else at the end


class Starts(NamedTuple):
    """Where parts start."""

    weights: Any  # W [K, D] of all, but for small noise
    biases: Any  # b [seeds, C, D]


class Fit(NamedTuple):
    """What training found, leaves [seeds, ...]."""

    params: Params
    validation: Array  # the best bound on validation rows, nats
    step: Array  # where it was


def as_rows(values: np.ndarray, observed: np.ndarray | None = None) -> dict[str, Array]:
    """Examples of a model, zeros where nothing is observed."""
    seen = np.ones(values.shape, bool) if observed is None else observed
    filled = np.where(seen, values, 0.0)
    return {"values": jnp.asarray(filled, jnp.float32), "observed": jnp.asarray(seen)}


@partial(jax.jit, static_argnums=(0, 1))
def fit(shape: Shape, recipe: Recipe, starts: Starts, train_rows: Any, validation_rows: Any) -> Fit:
    """The parameters, averaged over steps, at the best validation bound of each seed.

    Args:
      shape: of a part.
      recipe: see `Recipe`.
      starts: where those start.
      train_rows, validation_rows: examples.
    """
    num_rows, num_columns = train_rows["values"].shape
    model = table_model(num_columns, shape)
    batch_size = min(recipe.batch_size, num_rows)
    optimizer = _optimizer(recipe)

    def loss(params: Params, key: Array, batch: Any) -> Array:
        of_rows = -bounds(model, params, batch, key, recipe.num_samples).mean()
        return of_rows + penalty(params["parts"], shape, recipe.beliefs) / num_rows

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, average, state = carry
        key_rows, key_loss = jax.random.split(key)
        chosen = jax.random.permutation(key_rows, num_rows)[:batch_size]
        batch = jax.tree.map(lambda leaf: leaf[chosen], train_rows)
        gradient = jax.grad(loss)(params, key_loss, batch)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1.0 - recipe.ema_decay)
        return (params, average, state), None

    def block(carry: Any, key: Array) -> tuple[Any, None]:
        moving, best, number = carry
        key_steps, key_value = jax.random.split(key)
        moving, _ = jax.lax.scan(step, moving, jax.random.split(key_steps, BLOCK))
        value = bounds(model, moving[1], validation_rows, key_value, recipe.num_validation).mean()
        found = Fit(moving[1], value, (number + 1) * BLOCK)
        is_better = value > best.validation if recipe.is_stopped else jnp.asarray(True)
        best = select(is_better, found, best)
        return (moving, best, number + 1), None

    def one(key: Array, biases: Array) -> Fit:
        key_init, key_steps = jax.random.split(key)
        parts = jax.vmap(model.init)(jax.random.split(key_init, len(biases)))
        parts = jax.vmap(started, (0, None, 0))(parts, starts.weights, biases)
        params = {"parts": parts, "logits": jnp.zeros(len(biases))}
        start = (params, params, optimizer.init(params))
        keys = jax.random.split(key_steps, recipe.num_steps // BLOCK)
        nothing = Fit(params, jnp.asarray(-jnp.inf), jnp.asarray(0))
        (_, best, _), _ = jax.lax.scan(block, (start, nothing, jnp.asarray(0)), keys)
        return best

    keys = jax.random.split(jax.random.key(1), len(starts.biases))
    return jax.vmap(one)(keys, starts.biases)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, 100, recipe.num_steps, 0.02 * recipe.learning_rate
    )
    moves = optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.adamw(
            rate,
            b2=0.99,
            weight_decay=recipe.weight_decay,
            mask=partial(jax.tree.map, lambda leaf: leaf.ndim > 1),
        ),
    )
    return optax.apply_if_finite(moves, max_consecutive_errors=10)  # a seed outlives such a step


def bounds(model: Model, params: Params, rows: Any, key: Array, num_samples: int) -> Array:
    """The importance-weighted bound of each row, nats, [N]."""
    weights = log_weights(model, params, rows, key, num_samples)
    return jax.nn.logsumexp(weights, axis=0) - jnp.log(num_samples)


def log_weights(model: Model, params: Params, rows: Any, key: Array, num_samples: int) -> Array:
    """log p(c, x, z) - log q(z | c, x) at S draws of each part, [C S, N]."""

    def row(key: Array, x: Any) -> Array:
        return _draw(model, params, key, x, num_samples)[1].ravel()

    num_rows = rows["values"].shape[0]
    return jax.vmap(row, out_axes=1)(jax.random.split(key, num_rows), rows)


def _draw(model: Model, params: Params, key: Array, x: Any, num: int) -> tuple[Array, Array]:
    """z [C, S, K] of one example, and their log-weights [C, S]."""

    def part(own: Params, key: Array) -> tuple[Array, Array]:
        q = model.densities.guide(own, x)
        z = q.sample(key, (num,))
        return z, jax.vmap(losses.log_joint(model, own, x))(z) - q.log_prob(z)

    log_shares = jax.nn.log_softmax(params["logits"])
    z, weights = jax.vmap(part)(params["parts"], jax.random.split(key, len(log_shares)))
    return z, weights + log_shares[:, None]


@partial(jax.jit, static_argnums=(0, 3))
def log_evidence(model: Model, params: Params, rows: Any, num_samples: int) -> tuple[Array, Array]:
    """log p(x) of each row by importance sampling, and k-hat; [seeds, N] each."""

    def one(params: Params) -> tuple[Array, Array]:
        keys = jax.random.split(jax.random.key(5), num_samples // CHUNK)
        chunks = jax.lax.map(lambda key: log_weights(model, params, rows, key, CHUNK), keys)
        weights = chunks.reshape(-1, chunks.shape[-1])
        log_p = jax.nn.logsumexp(weights, axis=0) - jnp.log(num_samples)
        return log_p, jax.vmap(lambda row: psis(row).k_hat, in_axes=1)(weights)

    return jax.lax.map(one, params)


def _systematic(key: Array, weights: Array) -> Array:
    """Indices [S] of systematic resampling by weights [S] that sum to 1."""
    num = weights.shape[0]
    positions = (jnp.arange(num) + jax.random.uniform(key)) / num
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(weights), positions), num - 1)


class Draws(NamedTuple):
    """What is imputed, [seeds, S, N, D]: centres and draws of x, after importance resampling."""

    centres: Array
    values: Array


@partial(jax.jit, static_argnums=(0, 3))
def impute(model: Model, params: Params, rows: Any, num_samples: int) -> Draws:
    """Draws of p(z | what is observed) by sampling importance resampling, and x given them."""

    def row(params: Params, key: Array, x: Any) -> Draws:
        key_z, key_pick, key_x = jax.random.split(key, 3)
        num_parts = len(params["logits"])
        z, weights = _draw(model, params, key_z, x, num_samples // num_parts)

        def of_x(key: Array, own: Params, z: Array) -> Draws:
            given = model.densities.decode(own, x, z)
            return Draws(given.mean, given.sample(key)["values"])

        keys = jax.random.split(key_x, z.shape[:2])
        given = jax.vmap(jax.vmap(of_x, (0, None, 0)))(keys, params["parts"], z)
        chosen = _systematic(key_pick, jax.nn.softmax(weights.ravel()))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[chosen], given)

    def one(params: Params) -> Draws:
        keys = jax.random.split(jax.random.key(3), rows["values"].shape[0])
        return jax.vmap(partial(row, params), out_axes=1)(keys, rows)

    return jax.lax.map(one, params)
