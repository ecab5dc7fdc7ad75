"""A checksum of arrays, computed where they lie: the same on any number of devices, however the
arrays are cut over them.

A sum modulo 2^32 does not depend on the order of its terms, so no array has to be brought together.
Each term mixes one element with its place by steps like those of MurmurHash3's finaliser (Appleby
2011), a bijection: a change of one element always shows, any other change but for one chance in
2^64. It finds damage, not malice.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_WORDS = {
    1: jnp.uint8,
    2: jnp.uint16,
    4: jnp.uint32,
    8: jnp.uint32,
}  # bytes of an element -> what it is read as


def checksum(leaves: dict[str, Any]) -> str:
    """64 hex digits that follow the names, dtypes, shapes and bits of arrays (typed keys as their
    data).
    """
    sums = np.asarray(_sums(leaves))  # [leaves, 2], in the order of the names
    total = hashlib.sha256()
    for name, pair in zip(sorted(leaves), sums, strict=True):
        total.update(
            f"{name} {leaves[name].dtype} {leaves[name].shape} {pair[0]} {pair[1]}\n".encode()
        )
    return total.hexdigest()


@jax.jit
def _sums(leaves: dict[str, Array]) -> Array:
    return jnp.stack([_mixed_sums(leaves[name]) for name in sorted(leaves)])


def _mixed_sums(leaf: Array) -> Array:
    """Two sums over the elements, uint32 [2]."""
    bits = _bits(leaf)
    place = jnp.zeros(
        bits.shape, jnp.uint32
    )  # of each element, by its own axes: a reshape would move a sharded array
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    one = bits ^ (place * jnp.uint32(0x9E3779B9))
    one = (one ^ (one >> 16)) * jnp.uint32(0x85EBCA6B)
    one = (one ^ (one >> 13)) * jnp.uint32(0xC2B2AE35)
    one = one ^ (one >> 16)
    two = (one ^ (one >> 15)) * jnp.uint32(
        0x2C1B3C6D
    )  # a bijection of the first, and no linear one
    two = two ^ (two >> 12)
    return jnp.stack([one.sum(dtype=jnp.uint32), two.sum(dtype=jnp.uint32)])


def _bits(leaf: Array) -> Array:
    """The bits of an array as uint32, with a last axis of 2 where an element has 64."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, _WORDS[leaf.dtype.itemsize]).astype(jnp.uint32)
