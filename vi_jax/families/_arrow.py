"""Block-tridiagonal matrices with a border, as sparse precisions are in a good order: Cholesky
factors and triangular solves.

    A = [ D_1  E_2'            F_1' ]
        [ E_2  D_2  E_3'       F_2' ]
        [      E_3  D_3  ...   ...  ]
        [ F_1  F_2  ...        G    ]

The body is T blocks of width w, the border b rows. A chain has blocks of one step, groups that do
not touch have no E, and what touches everything is in the border. A dense matrix is all border.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.types import Array


class Arrow(NamedTuple):
    """Where each latent lies: hashable, numbers only."""

    slots: tuple[int, ...]  # latents of the body [T w], -1 where a block is not full
    border: tuple[int, ...]  # latents of the border [b]
    width: int  # w
    chained: bool  # whether neighbouring blocks touch

    @property
    def size(self) -> int:
        """D."""
        return sum(slot >= 0 for slot in self.slots) + len(self.border)

    @property
    def num_blocks(self) -> int:
        """T."""
        return len(self.slots) // self.width

    @property
    def places(self) -> np.ndarray:
        """Of each latent [D], its place in the order of elimination, of T w + b."""
        order = np.array(self.slots + self.border, int)
        places = np.empty(self.size, int)
        filled = np.flatnonzero(order >= 0)
        places[order[filled]] = filled
        return places

    @property
    def is_dense(self) -> bool:
        """Whether all is border."""
        return not self.slots


class Blocks(NamedTuple):
    """A symmetric matrix, or its lower triangular factor, in the places of an `Arrow`."""

    diagonal: Array  # D [T, w, w]; 1 where a slot is empty
    below: Array  # E [T, w, w], row block t and column block t - 1; the first is 0
    border: Array  # F [T, b, w]
    corner: Array  # G [b, b]


def flat_index(arrow: Arrow, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where the entries (row, column) of places lie in the four arrays of `Blocks` laid in one; row
    >= column, of the same or neighbouring blocks, or of the border.
    """
    width = arrow.width
    num_body = len(arrow.slots)
    num_border = len(arrow.border)
    squares = num_body * width
    block = columns // width
    inside = columns % width
    on_diagonal = rows * width + inside
    below = squares + rows * width + inside
    in_border = 2 * squares + (block * num_border + rows - num_body) * width + inside
    start = 2 * squares + num_border * num_body
    in_corner = start + (rows - num_body) * num_border + columns - num_body
    body = np.where(rows // width == block, on_diagonal, below)
    return np.where(columns >= num_body, in_corner, np.where(rows >= num_body, in_border, body))


def to_blocks(arrow: Arrow, flat: Array) -> Blocks:
    """The four arrays of one."""
    width = arrow.width
    body = len(arrow.slots)
    num_border = len(arrow.border)
    ends = np.cumsum([body * width, body * width, num_border * body])
    diagonal, below, border, corner = jnp.split(flat, ends)
    square = (arrow.num_blocks, width, width)
    return Blocks(
        diagonal.reshape(square),
        below.reshape(square),
        border.reshape(arrow.num_blocks, num_border, width),
        corner.reshape(num_border, num_border),
    )


def to_flat(blocks: Blocks) -> Array:
    """The four arrays laid in one."""
    return jnp.concatenate([part.reshape(-1) for part in blocks])


def num_flat(arrow: Arrow) -> int:
    """Numbers of the four arrays."""
    body = len(arrow.slots)
    return 2 * body * arrow.width + len(arrow.border) * (body + len(arrow.border))


def empty_slots(arrow: Arrow) -> np.ndarray:
    """Where the ones of empty slots lie in the four arrays laid in one."""
    places = np.flatnonzero(np.array(arrow.slots, int) < 0)
    return flat_index(arrow, places, places)


def split(arrow: Arrow, x: Array) -> tuple[Array, Array]:
    """A vector [D] as body [T, w], 0 in empty slots, and border [b]."""
    slots = np.array(arrow.slots, int)
    body = jnp.where(slots >= 0, x[np.maximum(slots, 0)], 0)
    return body.reshape(arrow.num_blocks, arrow.width), x[np.array(arrow.border, int)]


def join(arrow: Arrow, body: Array, border: Array) -> Array:
    """The vector [D] of body [T, w] and border [b]."""
    return jnp.concatenate([body.reshape(-1), border])[arrow.places]


def cholesky(arrow: Arrow, matrix: Blocks) -> Blocks:
    """The lower factor of a positive definite matrix, nan where it is none (from the failing block
    on).

    It costs T (w^3 + b w^2 + b^2 w) + b^3 operations.
    """
    if not arrow.chained:
        diagonal = _root(matrix.diagonal)
        border = _divide(matrix.border, diagonal)
        below = matrix.below
    else:
        diagonal, below, border = _chained_cholesky(matrix)
    corner = matrix.corner - jnp.einsum("tbi,tci->bc", border, border)
    corner = linalg.cholesky(corner) if len(arrow.border) else corner
    return Blocks(diagonal, below, border, corner)


def _chained_cholesky(matrix: Blocks) -> tuple[Array, Array, Array]:
    """D, E and F of the factor, from the first block to the last."""

    def step(before: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], Any]:
        root_before, border_before = before
        diagonal, below, border = row
        below = _divide(below, root_before)
        root = _root(diagonal - below @ below.T)
        border = _divide(border - border_before @ below.T, root)
        return (root, border), (root, below, border)

    width = matrix.diagonal.shape[-1]
    start = jnp.eye(width, dtype=matrix.diagonal.dtype), jnp.zeros_like(matrix.border[0])
    _, parts = jax.lax.scan(step, start, (matrix.diagonal, matrix.below, matrix.border))
    return parts[0], parts[1], parts[2]


def solve_lower(arrow: Arrow, factor: Blocks, x: Array) -> Array:
    """L^-1 x, x [D]."""
    body, border = split(arrow, x)
    if arrow.chained:

        def step(before: Array, row: Any) -> tuple[Array, Array]:
            root, below, x = row
            y = _solve(root, x - below @ before)
            return y, y

        start = jnp.zeros_like(body[0])
        _, body = jax.lax.scan(step, start, (factor.diagonal, factor.below, body))
    else:
        body = jax.vmap(_solve)(factor.diagonal, body)
    border = border - jnp.einsum("tbi,ti->b", factor.border, body)
    if len(arrow.border):
        border = linalg.solve_triangular(factor.corner, border, lower=True)
    return join(arrow, body, border)


def solve_upper(arrow: Arrow, factor: Blocks, x: Array) -> Array:
    """L'^-1 x, x [D]: a sample of N(0, (L L')^-1) of a standard normal x."""
    body, border = split(arrow, x)
    if len(arrow.border):
        border = linalg.solve_triangular(factor.corner, border, trans=1, lower=True)
    body = body - jnp.einsum("tbi,b->ti", factor.border, border)
    if arrow.chained:

        def step(after: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], Array]:
            below_after, y_after = after
            root, below, x = row
            y = _solve(root, x - below_after.T @ y_after, trans=1)
            return (below, y), y

        start = jnp.zeros_like(factor.below[0]), jnp.zeros_like(body[0])
        rows = (factor.diagonal, factor.below, body)
        _, body = jax.lax.scan(step, start, rows, reverse=True)
    else:
        body = jax.vmap(lambda root, x: _solve(root, x, trans=1))(factor.diagonal, body)
    return join(arrow, body, border)


def times_upper(arrow: Arrow, factor: Blocks, x: Array) -> Array:
    """L' x, x [D]: the standard normal of a sample x of N(0, (L L')^-1)."""
    body, border = split(arrow, x)
    after = jnp.concatenate([body[1:], jnp.zeros_like(body[:1])])
    below = jnp.concatenate([factor.below[1:], jnp.zeros_like(factor.below[:1])])
    inside = jnp.einsum("tij,ti->tj", factor.diagonal, body)
    inside = inside + jnp.einsum("tij,ti->tj", below, after)
    inside = inside + jnp.einsum("tbi,b->ti", factor.border, border)
    return join(arrow, inside, factor.corner.T @ border)


def log_det(arrow: Arrow, factor: Blocks) -> Array:
    """log det L."""
    body = jnp.log(jnp.diagonal(factor.diagonal, axis1=1, axis2=2)).sum()
    return body + jnp.log(jnp.diagonal(factor.corner)).sum() if arrow.border else body


def _root(a: Array) -> Array:
    """Lower factors of matrices [..., w, w]; without LAPACK where they are numbers."""
    return jnp.sqrt(a) if a.shape[-1] == 1 else linalg.cholesky(a)


def _solve(root: Array, x: Array, *, trans: int = 0) -> Array:
    """L^-1 x or L'^-1 x, x [w]."""
    if root.shape[-1] == 1:
        return x / root[0]
    return linalg.solve_triangular(root, x, trans=trans, lower=True)


def _divide(rows: Array, root: Array) -> Array:
    """rows L'^-1, rows [..., m, w]."""
    if root.shape[-1] == 1:
        return rows / root
    if rows.shape[-2] == 0:
        return rows
    turned = jnp.swapaxes(rows, -1, -2)
    return jnp.swapaxes(linalg.solve_triangular(root, turned, lower=True), -1, -2)
