"""Where switching dynamics start: regressions on windows of smoothed trials."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.models._linear_start import smoothed_path
from vi_jax.types import Array

WINDOW = 20  # steps that the first guess of a state's dynamics is of
NUM_ROUNDS = 15
NEAR = 7  # steps that are given a state together
RIDGE = 1e-2
MOST_TRIALS = 200
TURN = 0.3  # of random dynamics, where there are no trials
DECAY = 0.97


class Moves(NamedTuple):
    """Dynamics of K states: z -> A z + b."""

    transition: Array  # [K, D, D]
    offset: Array  # [K, D]


def random_moves(key: Array, num_states: int, size: int) -> Moves:
    """Rotations near the identity."""
    noise = jax.random.normal(key, (num_states, size, size))
    turned, triangle = linalg.qr(jnp.eye(size) + TURN * noise)
    signs = jnp.sign(jnp.diagonal(triangle, axis1=-2, axis2=-1))
    return Moves(DECAY * turned * signs[:, None], jnp.zeros((num_states, size)))


def moves_from(
    key: Array,
    rows: Mapping[str, np.ndarray],
    loadings: Array,
    is_count: np.ndarray,
    num_states: int,
) -> Moves:
    """Dynamics of clusters of windows of the trials' principal components: regressions on one
    window each to begin with, then on all steps that they predict best, by turns.

    Args:
      key: which windows.
      rows: {"values": [n, T, N], "observed"}.
      loadings: [N, D], of which the path is the least-squares solution.
      is_count: of each observation.
      num_states: K.
    """
    some = {name: np.asarray(leaf)[:MOST_TRIALS] for name, leaf in rows.items()}
    smooth = jnp.asarray(smoothed_path(some, is_count), loadings.dtype)
    centred = smooth - smooth.mean((0, 1))
    size = loadings.shape[1]
    gram = loadings.T @ loadings + RIDGE * jnp.eye(size, dtype=loadings.dtype)
    path = linalg.solve(gram, (centred @ loadings).reshape(-1, size).T).T
    path = path.reshape(*centred.shape[:2], size)
    before = jnp.concatenate([path[:, :-1], jnp.ones_like(path[:, :-1, :1])], axis=-1)
    after = path[:, 1:]
    num_trials, num_moves = after.shape[:2]
    # 1. a window for each state
    (key_trial, key_step) = jax.random.split(key)
    trial = jax.random.randint(key_trial, (num_states,), 0, num_trials)
    first = jax.random.randint(key_step, (num_states,), 0, max(num_moves - WINDOW, 1))
    steps = jnp.arange(num_moves)
    is_in = (steps >= first[:, None]) & (steps < first[:, None] + WINDOW)  # [K, T]
    weight = jax.nn.one_hot(trial, num_trials)[..., None] * is_in[:, None]  # [K, n, T]

    def regress(weight: Array) -> Array:
        gram = jnp.einsum("knt,nti,ntj->kij", weight, before, before)
        across = jnp.einsum("knt,nti,ntj->kij", weight, before, after)
        return linalg.solve(gram + RIDGE * jnp.eye(size + 1, dtype=gram.dtype), across)

    # 2. steps go to the state of the least residual around them
    def one(slope: Array, _: None) -> tuple[Array, None]:
        residual = after - jnp.einsum("nti,kij->kntj", before, slope)
        square = (residual**2).sum(-1)
        ones = jnp.ones(min(NEAR, num_moves), square.dtype)
        near = jax.vmap(jax.vmap(lambda row: jnp.convolve(row, ones, mode="same")))(square)
        return regress(jax.nn.one_hot(near.argmin(0), num_states, axis=0)), None

    slope, _ = jax.lax.scan(one, regress(weight), None, length=NUM_ROUNDS)
    turned = jnp.swapaxes(slope, -1, -2)
    # no state starts with dynamics that grow
    norm = linalg.svd(turned[..., :-1], compute_uv=False)[..., 0]
    return Moves(turned[..., :-1] / jnp.maximum(norm, 1.0)[:, None, None], turned[..., -1])
