"""Closed-form learning of switching linear dynamics: expected sufficient statistics, and the
regimes at the optimum of their mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains.kalman import Smoothed
from vi_jax.chains.learning import steadied
from vi_jax.chains.states import StateMoments
from vi_jax.chains.switching import Regimes
from vi_jax.types import Array

PSEUDO_STEPS = 1e-3  # of each state, as its present dynamics have them


class RegimeStats(NamedTuple):
    """Expected sufficient statistics of one series, or their means over series; z' is (z, 1)."""

    first: Array  # E[z_1], [D]
    first_second: Array  # E[z_1 z_1'], [D, D]
    start: Array  # P(k_1), [K]
    moves: Array  # sum of P(k_t, k_(t+1)), [K, K]
    weight: Array  # steps in each state, [K]
    before: Array  # sum of q(k_t) E[z'_t z'_t'], [K, D + 1, D + 1]
    across: Array  # sum of q(k_t) E[z_(t+1) z'_t'], [K, D, D + 1]
    after: Array  # sum of q(k_t) E[z_(t+1) z_(t+1)'], [K, D, D]


def regime_stats(moments: StateMoments, of: Smoothed) -> RegimeStats:
    """The statistics of one series."""
    probs = moments.probs
    second = of.cov + of.mean[..., None] * of.mean[..., None, :]
    crossed = of.cross + of.mean[:-1, :, None] * of.mean[1:, None]
    mean = probs.T @ of.mean[:-1]  # [K, D]
    weight = probs.sum(0)
    before = _bordered(_weighted(probs, second[:-1]), mean, weight)
    across = jnp.swapaxes(_weighted(probs, crossed), -1, -2)
    across = jnp.concatenate([across, (probs.T @ of.mean[1:])[..., None]], axis=-1)
    after = _weighted(probs, second[1:])
    own = (probs[0], moments.moves, weight)
    return RegimeStats(of.mean[0], second[0], *own, before, across, after)


def regimes_of(stats: RegimeStats, present: Regimes) -> Regimes:
    """The regimes at the optimum of mean statistics (Ghahramani & Hinton 2000, appendix).

    To the statistics of each state those of a few steps of its present dynamics are added, so that
    a state that is hardly visited keeps them; no such step lowers the expected log density.
    """
    size = present.mean.shape[-1]
    identity = jnp.eye(size, dtype=present.mean.dtype)
    # 1. the present dynamics at z' of second moment I
    both = jnp.concatenate([present.transition, present.offset[..., None]], axis=-1)
    spread = present.noise + both @ jnp.swapaxes(both, -1, -2)
    before = stats.before + PSEUDO_STEPS * jnp.eye(size + 1, dtype=identity.dtype)
    across = stats.across + PSEUDO_STEPS * both
    after = stats.after + PSEUDO_STEPS * spread
    weight = stats.weight + PSEUDO_STEPS
    # 2. a regression for each state
    slope = jnp.swapaxes(linalg.solve(before, jnp.swapaxes(across, -1, -2)), -1, -2)
    noise = (after - slope @ jnp.swapaxes(across, -1, -2)) / weight[:, None, None]
    # 3. states and the start
    moves = stats.moves + PSEUDO_STEPS * jnp.exp(present.log_transition)
    start = stats.start + PSEUDO_STEPS * jnp.exp(present.log_start)
    cov = stats.first_second - jnp.outer(stats.first, stats.first)
    return Regimes(
        _log_shares(start),
        _log_shares(moves),
        stats.first,
        steadied(cov),
        slope[..., :-1],
        slope[..., -1],
        jax.vmap(steadied)(noise),
    )


def _log_shares(counts: Array) -> Array:
    """Logarithms of the shares of counts [..., K]: finite, since a share of a move that is hardly
    ever made falls by PSEUDO_STEPS with each step of learning, to 0 at last.
    """
    shares = counts / counts.sum(-1, keepdims=True)
    return jnp.log(jnp.maximum(shares, jnp.finfo(shares.dtype).tiny))


def _weighted(probs: Array, of: Array) -> Array:
    """sum_t q(k_t) M_t, [K, D, D]."""
    return jnp.einsum("tk,tij->kij", probs, of)


def _bordered(square: Array, edge: Array, corner: Array) -> Array:
    """[[square, edge], [edge', corner]], [K, D + 1, D + 1]."""
    top = jnp.concatenate([square, edge[..., None]], axis=-1)
    bottom = jnp.concatenate([edge, corner[:, None]], axis=-1)
    return jnp.concatenate([top, bottom[:, None]], axis=1)
