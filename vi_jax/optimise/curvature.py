"""Sparse Hessians of a log density: the pattern found by probing, the Hessian recovered from a few
Hessian-vector products.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.families.sparse_precision import Sparsity, sparsity
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse import order as ordering
from vi_jax.sparse.arrow import Arrow, Blocks
from vi_jax.types import Array, LogDensity

NUM_PROBES = 2  # Hessians whose entries are looked at
NUM_CHECKS = 2  # other locations, at which the recovered Hessian has to be right
PROBE_RADIUS = 0.5  # standard deviation of the locations about the centre
ZERO = 16.0  # units of rounding below which an entry, per root of its diagonals, is 0
# of programs that run a few times: a third of the time to compile
QUICK = {"xla_backend_optimization_level": 0}
BATCH = 32  # Hessian-vector products at a time


class Colouring(NamedTuple):
    """Groups of columns of a symmetric matrix that one product gives together."""

    colours: np.ndarray  # [D], of each column
    num_colours: int
    rows: np.ndarray  # entries [M] of the lower triangle, the diagonal included
    columns: np.ndarray
    from_colour: np.ndarray  # [M], the product that holds the entry
    from_row: np.ndarray  # [M], and where in it


class Curvature(NamedTuple):
    """How to take a Hessian, and the order in which it is factorised."""

    sparsity: Sparsity
    colouring: Colouring

    @property
    def arrow(self) -> Arrow:
        return self.sparsity.arrow

    @property
    def cost(self) -> int:
        """Gradient evaluations of a Hessian: a Hessian-vector product counts 2."""
        return 2 * self.colouring.num_colours


class Found(NamedTuple):
    """A pattern, and what is known of it."""

    pattern: np.ndarray  # [D, D] bool; all where none was found
    why: str  # in words
    evaluations: int  # gradients that it took


def colour(pattern: np.ndarray) -> Colouring:
    """A star colouring (Gebremedhin, Manne & Pothen 2005), by hubs: the latents that touch most
    others have a colour each, and the rest are coloured so that no two of a colour touch the same
    one (Curtis, Powell & Reid 1974). An entry of a hub is read from the hub's product; any other
    from the row of its own, where it is alone.

    Args:
      pattern: [D, D] bool, symmetric, with its diagonal.
    """
    size = len(pattern)
    hubs, _ = ordering.peel(pattern)
    number = _num_hubs(pattern, hubs)
    colours = np.full(size, -1)
    colours[hubs[:number]] = np.arange(number)
    inside = np.sort(hubs[number:])
    adjacent = pattern[np.ix_(inside, inside)]
    near = adjacent.astype(np.float32)
    near = near @ near > 0  # two that touch one
    own = np.full(len(inside), -1)
    for i in range(len(inside)):
        taken = set(own[near[i]].tolist())
        own[i] = next(c for c in range(len(inside)) if c not in taken)
    colours[inside] = own + number
    rows, columns = np.nonzero(np.tril(pattern))
    is_hub = np.zeros(size, bool)
    is_hub[hubs[:number]] = True
    column = np.where(is_hub[rows], rows, columns)  # whose product is read
    row = np.where(is_hub[rows], columns, rows)
    return Colouring(colours, int(colours.max()) + 1, rows, columns, colours[column], row)


def _num_hubs(pattern: np.ndarray, hubs: np.ndarray) -> int:
    """The number of hubs with which the fewest colours seem to be needed: the hubs', and as many as
    a latent of the rest touches.
    """
    left = pattern.copy()
    degree = left.sum(0)
    best = 0
    fewest = int(degree.max())
    for number, hub in enumerate(hubs[:-1], 1):
        degree = degree - left[hub]
        left[hub] = False
        left[:, hub] = False
        degree[hub] = 0
        need = number + int(degree.max())
        if need < fewest:
            fewest = need
            best = number
    return best


def curvature(pattern: np.ndarray) -> Curvature:
    """Colours and order for Hessians with a pattern [D, D]."""
    return Curvature(sparsity(pattern), colour(pattern))


def products(log_density: LogDensity, u: Array, colouring: Colouring) -> tuple[Array, Array, Array]:
    """log p, its gradient [D], and the sums of the Hessian's columns of each colour [C, D]."""

    def slope(u: Array) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(log_density)(u)
        return gradient, value

    gradient, product, value = jax.linearize(slope, u, has_aux=True)
    seeds = jnp.asarray(colouring.colours == np.arange(colouring.num_colours)[:, None], u.dtype)
    if colouring.num_colours <= BATCH:
        return value, gradient, jax.vmap(product)(seeds)
    return value, gradient, jax.lax.map(product, seeds, batch_size=BATCH)


def entries(log_density: LogDensity, u: Array, colouring: Colouring) -> tuple[Array, Array, Array]:
    """log p, its gradient [D], and the entries [M] of the Hessian's lower triangle."""
    value, gradient, columns = products(log_density, u, colouring)
    return value, gradient, columns[colouring.from_colour, colouring.from_row]


def dense(colouring: Colouring, values: Array) -> Array:
    """The symmetric matrix [D, D] of entries [M]."""
    size = len(colouring.colours)
    lower = jnp.zeros((size, size), values.dtype).at[colouring.rows, colouring.columns].set(values)
    return lower + jnp.tril(lower, -1).T


def blocks(curvature: Curvature, values: Array) -> Blocks:
    """The symmetric matrix of entries [M] in the order of elimination, 1 in empty slots."""
    arrow = curvature.arrow
    colouring = curvature.colouring
    places = arrow.places
    rows = places[colouring.rows]
    columns = places[colouring.columns]
    flat = jnp.zeros(blocked.num_flat(arrow), values.dtype).at[blocked.empty_slots(arrow)].set(1.0)
    low = blocked.flat_index(arrow, np.maximum(rows, columns), np.minimum(rows, columns))
    flat = flat.at[low].set(values)
    num_body = len(arrow.slots)
    square = np.where(
        columns < num_body,
        rows // arrow.width == columns // arrow.width,  # within a block of the body
        rows >= num_body,  # or the corner
    )
    square = square & ((rows < num_body) == (columns < num_body)) & (rows != columns)
    high = _mirrored(arrow, rows[square], columns[square])
    return blocked.to_blocks(arrow, flat.at[high].set(values[square]))


def _mirrored(arrow: Arrow, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where the entries (column, row) above the diagonal lie, of one block or of the corner."""
    low = np.minimum(rows, columns)
    high = np.maximum(rows, columns)
    num_body = len(arrow.slots)
    start = blocked.flat_index(arrow, np.array([num_body]), np.array([num_body]))
    in_corner = start + (low - num_body) * len(arrow.border) + high - num_body
    return np.where(low >= num_body, in_corner, low * arrow.width + high % arrow.width)


def find(key: Array, log_density: LogDensity, centre: Array) -> Found:
    """The pattern of the Hessian, by whole Hessians at two locations near the centre; verified at
    two others, where the Hessian that the colouring recovers has to agree with Hessian-vector
    products along random directions.

    Args:
      key: of the locations.
      log_density: of u [D], twice differentiable by JAX.
      centre: u [D].

    Returns:
      Found. Where the Hessians are not finite, or another location contradicts them, its pattern is
      full, and `why` says so. It costs 4 D gradients and a few more.
    """
    size = centre.size
    full = np.ones((size, size), bool)
    whole = colour(full)
    key_probe, key_check, key_along = jax.random.split(key, 3)
    shape = (NUM_PROBES, size)
    where = centre + PROBE_RADIUS * jax.random.normal(key_probe, shape, centre.dtype)
    probe = jax.jit(partial(products, log_density, colouring=whole), compiler_options=_quick())
    values, _, hessians = (np.stack(parts) for parts in zip(*map(probe, where), strict=True))
    spent = NUM_PROBES * 2 * size
    if not np.all(np.isfinite(hessians)) or not np.all(np.isfinite(values)):
        return Found(full, "its Hessian is not finite near the start", spent)
    scale = np.sqrt(np.abs(np.diagonal(hessians, axis1=1, axis2=2)))
    least = ZERO * np.finfo(hessians.dtype).eps * scale[:, :, None] * scale[:, None, :]
    pattern = np.any(np.abs(hessians) > least, axis=0) | np.eye(size, dtype=bool)
    pattern = pattern | pattern.T
    if pattern.all():
        return Found(full, "its Hessian is dense", spent)
    made = colour(pattern)
    where = centre + PROBE_RADIUS * jax.random.normal(key_check, shape, centre.dtype)
    along = jax.random.normal(key_along, shape, centre.dtype)
    check = jax.jit(partial(_error, log_density, colouring=made), compiler_options=_quick())
    errors = np.array([float(check(u, v)) for u, v in zip(where, along, strict=True)])
    spent += NUM_CHECKS * (2 + 2 * made.num_colours)
    if not bool(np.all(errors < np.sqrt(np.finfo(hessians.dtype).eps))):
        return Found(full, "zeros of its Hessian are not zero everywhere", spent)
    share = pattern.mean()
    why = f"{100 * share:.2g} % of its Hessian are not 0, from {made.num_colours:,} products"
    return Found(pattern, why, spent)


def _quick() -> dict[str, int]:
    return QUICK if jax.default_backend() == "cpu" else {}


def _error(log_density: LogDensity, u: Array, along: Array, colouring: Colouring) -> Array:
    """The relative error of the recovered Hessian times a vector."""
    _, _, values = entries(log_density, u, colouring)
    lower = colouring.rows > colouring.columns
    found = jnp.zeros_like(u).at[colouring.rows].add(values * along[colouring.columns])
    mirrored = values[lower] * along[colouring.rows[lower]]
    found = found.at[colouring.columns[lower]].add(mirrored)
    expected = jax.jvp(jax.grad(log_density), (u,), (along,))[1]
    return jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected)
