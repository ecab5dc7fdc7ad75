"""The order in which a sparse symmetric matrix is factorised, and the entries of its factor."""

import numpy as np

from vi_jax.families._arrow import Arrow

# operations that a block takes by itself, in a loop that XLA does not fuse
_BLOCK_OVERHEAD = 20_000
_MAX_COST = 0.5  # of an order that one with a larger border, or a sparse one, may cost at most
_NUM_BORDERS = 16  # sizes of the border that are tried
_MAX_GROUP = 16  # of latents that touch one another and no others: blocks without E


def fill(arrow: Arrow, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [M] of places below the diagonal at which the Cholesky factor of a matrix
    with the pattern [D, D] is not zero.
    """
    size = len(arrow.slots) + len(arrow.border)
    places = arrow.places
    present = np.zeros((size, size), bool)
    present[np.ix_(places, places)] = pattern
    for column in range(size):
        rows = column + 1 + np.flatnonzero(present[column + 1 :, column])
        present[np.ix_(rows, rows)] = True
        if len(rows) == size - column - 1:
            break  # the rest is full
    rows, columns = np.nonzero(np.tril(present, -1))
    return rows, columns


def arrange(pattern: np.ndarray) -> Arrow:
    """The order in which a Cholesky factorisation costs least, of those tried: what touches most is
    put in the border, the rest in the order of reverse Cuthill & McKee (1969), or, where it falls
    apart in small groups, group by group.

    Args:
      pattern: [D, D] bool, where the matrix may not be zero.
    """
    size = len(pattern)
    everything = Arrow((), tuple(range(size)), 1, False)
    cheapest = _MAX_COST * size**3 / 3
    best = everything
    hubs, degrees = peel(pattern)
    for number in _numbers_to_try(degrees):
        border = hubs[:number]
        inside = np.setdiff1d(np.arange(size), border)
        made = _ordered(pattern, inside, tuple(int(hub) for hub in border))
        cost = _cost(made)
        if cost < cheapest:
            cheapest = _MAX_COST * cost
            best = made
    return best


def peel(pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents [D] by how many others they touch, those taken before left out, and that number: the
    hubs come first.
    """
    left = pattern.astype(bool)
    np.fill_diagonal(left, False)
    degree = left.sum(0)
    order = np.empty(len(left), int)
    degrees = np.empty(len(left), int)
    for number in range(len(left)):
        hub = int(np.argmax(degree))
        order[number] = hub
        degrees[number] = degree[hub]
        degree = degree - left[hub]
        degree[hub] = -1
        left[hub] = False
        left[:, hub] = False
        degree[order[: number + 1]] = -1
    return order, degrees


def _numbers_to_try(degrees: np.ndarray) -> list[int]:
    """Sizes of the border: a few, and those just after the number of others touched falls."""
    size = len(degrees)
    spaced = np.geomspace(1, max(size // 2, 1), _NUM_BORDERS).astype(int)
    falls = 1 + np.flatnonzero(2 * degrees[1:] < degrees[:-1])
    after = falls[:_NUM_BORDERS, None] + np.arange(3)
    return sorted({0, *spaced.tolist(), *after.ravel().tolist()} & set(range(size)))


def _ordered(pattern: np.ndarray, inside: np.ndarray, border: tuple[int, ...]) -> Arrow:
    """The body in order, in the narrowest blocks."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

    graph = csr_matrix(pattern[np.ix_(inside, inside)])
    num_groups, group_of = connected_components(graph, directed=False)
    largest = int(np.bincount(group_of).max())
    if largest <= _MAX_GROUP:
        slots = np.full((num_groups, largest), -1)
        for group in range(num_groups):
            members = inside[group_of == group]
            slots[group, : len(members)] = members
        return Arrow(tuple(slots.ravel().tolist()), border, largest, chained=False)
    order = reverse_cuthill_mckee(graph, symmetric_mode=True)
    rows, columns = graph[order][:, order].nonzero()
    width = max(1, int(np.abs(rows - columns).max()))
    slots = np.full(-(-len(inside) // width) * width, -1)
    slots[: len(inside)] = inside[order]
    return Arrow(tuple(slots.tolist()), border, width, chained=True)


def _cost(arrow: Arrow) -> float:
    """Operations of a Cholesky factorisation, about."""
    b = len(arrow.border)
    w = arrow.width
    steps = arrow.num_blocks * _BLOCK_OVERHEAD if arrow.chained else 0
    return steps + arrow.num_blocks * (w**3 + b * w**2 + b**2 * w) + b**3 / 3
