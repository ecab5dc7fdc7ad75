"""Two forms of the convolution of images, of its transpose and of its gradient in the kernel: by
matrix products, for CPUs, and by XLA's own convolution, for all other platforms.

A convolution is one matrix product with the patches of its image (im2col; Chellapilla et al. 2006).
Its transpose is a product and a shuffle of sub-pixels (Shi et al. 2016), without the zeros that a
dilated image is made of. `_convolution` chooses between the forms.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array

# Channels up to which patches are made in one pass over them, a sum of disjoint pieces that XLA
# fuses; above it row by row. Measured on two CPU cores.
MAX_FUSED_CHANNELS = 8


class Geometry(NamedTuple):
    """The sizes of a convolution, each a pair: rows, columns."""

    image: tuple[int, int]  # H, W of x
    out: tuple[int, int]  # of y
    kernel: tuple[int, int]
    strides: tuple[int, int]
    low: tuple[int, int]  # zeros before the first row and column of x

    def high(self, axis: int) -> int:
        """Zeros after the last row (0) or column (1) of x; negative where no window reaches the
        end.
        """
        reach = (self.out[axis] - 1) * self.strides[axis] + self.kernel[axis]
        return reach - self.image[axis] - self.low[axis]


# The form of a CPU: patches, products, and sub-pixels in their places.


def convolve_by_product(x: Array, w: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    patches = _patches(x.astype(factors), geometry)
    w = w.astype(factors).reshape(patches.shape[-1], w.shape[-1])
    y = jnp.matmul(patches.reshape(-1, len(w)), w, preferred_element_type=out)
    return y.reshape(*x.shape[:-3], *geometry.out, w.shape[1])


def spread_by_product(y: Array, w: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    (channels, outputs) = w.shape[2:]
    sums = jnp.promote_types(out, jnp.float32)
    taps = jnp.matmul(
        y.astype(factors).reshape(-1, outputs),
        w.astype(factors).reshape(-1, outputs).T,
        preferred_element_type=sums,
    )
    images = _overlap(taps.reshape(-1, *geometry.out, *geometry.kernel, channels), geometry)
    return images.astype(out).reshape(*y.shape[:-3], *geometry.image, channels)


def correlate_by_product(x: Array, y: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    patches = _patches(x.astype(factors), geometry)
    left = patches.reshape(-1, patches.shape[-1])
    right = y.astype(factors).reshape(-1, y.shape[-1])
    # the smaller matrix in front: the product is faster so, and the transpose of its outcome small
    if left.shape[1] <= right.shape[1]:
        w = jnp.matmul(left.T, right, preferred_element_type=out)
    else:
        w = jnp.matmul(right.T, left, preferred_element_type=out).T
    return w.reshape(*geometry.kernel, x.shape[-1], y.shape[-1])


def _patches(x: Array, geometry: Geometry) -> Array:
    """What each window of x [..., H, W, C] sees, [N, *geometry.out, kh kw C]."""
    (kh, kw) = geometry.kernel
    x = x.reshape(-1, *x.shape[-3:])
    channels = x.shape[-1]

    def piece(a: int, b: int, place: int, places: int) -> Array:
        """What tap (a, b) of every window sees, in its place among the channels of others."""
        (across, rows) = _seen(geometry, 0, a)
        (along, columns) = _seen(geometry, 1, b)
        before = place * channels
        after = (places - 1 - place) * channels
        return _padded(x[:, across, along], rows, columns, (before, after))

    if channels <= MAX_FUSED_CHANNELS:
        taps = [piece(a, b, a * kw + b, kh * kw) for a in range(kh) for b in range(kw)]
        return functools.reduce(jnp.add, taps)
    rows = [functools.reduce(jnp.add, [piece(a, b, b, kw) for b in range(kw)]) for a in range(kh)]
    return jnp.stack(rows, axis=3).reshape(len(x), *geometry.out, kh * kw * channels)


def _seen(geometry: Geometry, axis: int, tap: int) -> tuple[slice, tuple[int, int]]:
    """The pixels of an axis that a tap of the windows sees, and how many windows before and after
    see none.
    """
    stride = geometry.strides[axis]
    windows = geometry.out[axis]
    offset = tap - geometry.low[axis]  # window i sees pixel i stride + offset
    before = min(windows, max(0, -(offset // stride)))
    beyond = (geometry.image[axis] - 1 - offset) // stride + 1
    end = max(before, min(windows, beyond))
    pixels = slice(before * stride + offset, end * stride + offset, stride)
    return pixels, (before, windows - end)


def _overlap(taps: Array, geometry: Geometry) -> Array:
    """The sums of overlapping windows, the adjoint of `_patches`: taps [N, *geometry.out, kh, kw,
    C] in images [N, H, W, C].

    The sub-pixels (a, b) of every block of sh x sw pixels have the taps of the same remainder:
    those of each are summed, and all of them then laid side by side.
    """
    (sh, sw) = geometry.strides
    (top, left) = geometry.low
    (height, width) = geometry.image
    blocks = (-(-(top + height) // sh), -(-(left + width) // sw))
    parts = [[_sub_pixels(taps, geometry, blocks, a, b) for b in range(sw)] for a in range(sh)]
    whole = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=2)
    whole = whole.reshape(len(taps), blocks[0] * sh, blocks[1] * sw, taps.shape[-1])
    return whole[:, top : top + height, left : left + width]


def _sub_pixels(taps: Array, geometry: Geometry, blocks: tuple[int, int], a: int, b: int) -> Array:
    """Sub-pixel (a, b) of every block, [N, *blocks, C]."""
    (rows, columns) = geometry.out
    (kh, kw) = geometry.kernel
    (sh, sw) = geometry.strides
    total = jnp.zeros((len(taps), *blocks, taps.shape[-1]), taps.dtype)
    for i in range(a, kh, sh):
        for j in range(b, kw, sw):
            down = i // sh
            right = j // sw
            below = blocks[0] - rows - down
            beyond = blocks[1] - columns - right
            total = total + _padded(taps[..., i, j, :], (down, below), (right, beyond))
    return total


def _padded(
    x: Array, rows: tuple[int, int], columns: tuple[int, int], channels: tuple[int, int] = (0, 0)
) -> Array:
    """Zeros before and after the rows, columns and channels of x [N, H, W, C]; a negative number
    crops.
    """
    sides = [(*sides, 0) for sides in ((0, 0), rows, columns, channels)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), sides)


# The form of every other platform: XLA's own convolution.


def convolve_by_lax(x: Array, w: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    y = jax.lax.conv_general_dilated(
        x.astype(factors).reshape(-1, *x.shape[-3:]),
        w.astype(factors),
        geometry.strides,
        [(low, geometry.high(axis)) for axis, low in enumerate(geometry.low)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=out,
    )
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def spread_by_lax(y: Array, w: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    x = jax.lax.conv_general_dilated(
        y.astype(factors).reshape(-1, *y.shape[-3:]),
        w.astype(factors)[::-1, ::-1],
        (1, 1),
        [
            (k - 1 - low, k - 1 - geometry.high(axis))
            for axis, (k, low) in enumerate(zip(geometry.kernel, geometry.low, strict=True))
        ],
        lhs_dilation=geometry.strides,
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        preferred_element_type=out,
    )
    return x.reshape(*y.shape[:-3], *x.shape[1:])


def correlate_by_lax(x: Array, y: Array, geometry: Geometry, factors: Any, out: Any) -> Array:
    return jax.lax.conv_general_dilated(
        x.astype(factors).reshape(-1, *x.shape[-3:]),
        y.astype(factors).reshape(-1, *y.shape[-3:]),
        (1, 1),
        [(low, geometry.high(axis)) for axis, low in enumerate(geometry.low)],
        rhs_dilation=geometry.strides,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=out,
    )
