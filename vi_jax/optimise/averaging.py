"""Iterate averaging in a memory of fixed size, and whether the iterates are stationary: split
R-hat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array

NUM_BLOCKS = 32
FIRST_BLOCK = 10  # iterates of a block, at first
WINDOW_STARTS = (0.05, 0.25, 0.45, 0.65)  # of the windows tried, as shares of the iterates


class Iterates(NamedTuple):
    """Sums over blocks of `width` iterates in a row. When all blocks are full each two become one,
    and the width doubles: however many iterates there were, any late part of them is known to a
    sixteenth.
    """

    centre: Array  # [P], subtracted first, so that squares keep their digits
    sums: Array  # [32, P]
    squares: Array  # [32, P]
    width: Array  # int32
    num: Array  # int32, iterates so far


class Window(NamedTuple):
    """The stretch up to now whose halves agree best."""

    r_hat: Array  # split R-hat, the largest of the parameters that are watched
    average: Array  # [P]
    halves: Array  # [2, P], averages of either half
    size: Array  # int32, iterates


def empty(params: Array) -> Iterates:
    """Nothing yet, about params [P]."""
    zeros = jnp.zeros((NUM_BLOCKS, params.size), params.dtype)
    return Iterates(params, zeros, zeros, jnp.int32(FIRST_BLOCK), jnp.int32(0))


def add(iterates: Iterates, params: Array) -> Iterates:
    """One more iterate."""
    full = iterates.num == NUM_BLOCKS * iterates.width

    def halve(x: Array) -> Array:
        pairs = x.reshape(NUM_BLOCKS // 2, 2, -1).sum(1)
        return jnp.concatenate([pairs, jnp.zeros_like(pairs)])

    sums, squares = jax.lax.cond(
        full,
        lambda s, q: (halve(s), halve(q)),
        lambda s, q: (s, q),
        iterates.sums,
        iterates.squares,
    )
    width = jnp.where(full, 2 * iterates.width, iterates.width)
    block = iterates.num // width
    x = params - iterates.centre
    return Iterates(
        iterates.centre, sums.at[block].add(x), squares.at[block].add(x**2), width, iterates.num + 1
    )


def at_block(iterates: Iterates) -> Array:
    """Whether the last block is whole."""
    return iterates.num % iterates.width == 0


def best_window(iterates: Iterates, *, first: int = 0) -> Window:
    """Of the windows from a share of the iterates on, the one of least R-hat (Welandawe et al.
    2024; Vehtari et al. 2021).

    R-hat is that of the numbers from `first` on. Needs whole blocks, 4 at least; split
    R-hat^2 = (n-1)/n + (variance of the halves' means) / (mean variance within halves).
    """
    blocks = iterates.num // iterates.width
    # [4], blocks of half a window
    half = (blocks - jnp.floor(jnp.asarray(WINDOW_STARTS) * blocks).astype(jnp.int32)) // 2
    place = jnp.arange(NUM_BLOCKS)
    late = (place >= blocks - half[:, None]) & (place < blocks)  # [4, 32]
    early = (place >= blocks - 2 * half[:, None]) & (place < blocks - half[:, None])
    masks = jnp.stack([early, late], 1).astype(iterates.sums.dtype)  # [4, 2, 32]
    n = (half * iterates.width).astype(iterates.sums.dtype)[:, None]  # [4, 1]
    means = masks @ iterates.sums / n[..., None]  # [4, 2, P]
    variances = jnp.maximum(masks @ iterates.squares / n[..., None] - means**2, 0.0)
    within = variances.mean(1) * n / (n - 1)
    between = 0.5 * (means[:, 0] - means[:, 1]) ** 2
    # a parameter that does not move is stationary
    ratio = jnp.where(between > 0, between / jnp.maximum(within, 1e-30), 0.0)
    r_hat = jnp.sqrt((n[:, 0] - 1) / n[:, 0] + jnp.max(ratio[:, first:], 1))
    best = jnp.argmin(r_hat)
    halves = iterates.centre + means[best]
    return Window(r_hat[best], halves.mean(0), halves, 2 * half[best] * iterates.width)
