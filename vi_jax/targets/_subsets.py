"""Sampling of rows without replacement, at a cost that does not grow with their number."""

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array

START_BATCHES = 8  # batches' worth of rows that a method's start may use, if there are as many
_ROUNDS = 6
_TURNS = 4
_SHUFFLED = 1000  # rows up to which a shuffle of all is as quick
_MAX_ROWS = 2**31  # rows: their sum with a shift stays within 32 bits


def subset(key: Array, num: int, size: int) -> Array:
    """[size] different numbers of 0..num-1 in random order, int32; each is among them with
    probability size / num.

    A shuffle up to 1,000. Beyond, where it would take longer than most gradients, the first `size`
    images under a random permutation: a Feistel network (Luby & Rackoff 1988) over the even number
    of bits that holds `num`, iterated until it lands within (Black & Rogaway 2002), then turned by
    a uniform shift, which makes single numbers equally probable: the shift is the sum of four words
    mod N, uniform to a share of (N / 2^32)^4. Pairs are as far as the network's rounds are random
    functions.

    Raises:
      ValueError: size is not in 1..num, or num is above 2^31.
    """
    if not 1 <= size <= num <= _MAX_ROWS:
        raise ValueError(f"a subset expects 1 <= size <= num <= 2^31; got {size} of {num}.")
    if size == num:
        return jnp.arange(num)
    if num <= _SHUFFLED:
        return jax.random.permutation(key, num)[:size]
    # at once: XLA takes a tenth of a second for each sample
    words = jax.random.bits(key, (_ROUNDS + _TURNS,), jnp.uint32)
    secrets = words[:_ROUNDS]
    turns = words[_ROUNDS:] % np.uint32(num)
    half = ((num - 1).bit_length() + 1) // 2

    def permute(x: Array) -> Array:
        return _feistel(secrets, x, half)

    def walk(x: Array) -> Array:
        return jnp.where(x < num, x, permute(x))

    x = jax.lax.while_loop(
        lambda x: jnp.any(x >= num), walk, permute(jnp.arange(size, dtype=jnp.uint32))
    )
    for turn in turns:
        x = (x + turn) % np.uint32(num)
    return x.astype(jnp.int32)


def _feistel(secrets: Array, x: Array, half: int) -> Array:
    """A permutation of the numbers of 2 `half` bits."""
    mask = np.uint32(2**half - 1)
    left = x >> half
    right = x & mask
    for secret in secrets:
        mixed = left ^ (_mixed(right ^ secret) & mask)
        left = right
        right = mixed
    return (left << half) | right


def _mixed(x: Array) -> Array:
    """The finaliser of MurmurHash3: every bit of x moves every bit of the result."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
