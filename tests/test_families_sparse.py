"""The Gaussian with a sparse precision against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_mean, normal
from scipy import stats

import vi_jax as vi
from vi_jax.families.sparse_precision import sparsity
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse import order as ordering


def chain_with_hubs(size=30):
    """A chain whose latents come in a random order, and two that touch all."""
    where = np.random.default_rng(0).permutation(size)
    return (np.abs(where[:, None] - where) <= 1) | (where < 2) | (where < 2)[:, None]


def lattice(side=5):
    i, j = np.divmod(np.arange(side * side), side)
    return np.abs(i[:, None] - i) + np.abs(j[:, None] - j) <= 1


def groups(size=23, each=3):
    """Groups of three, one of two, and the first latent in touch with all."""
    group = (np.arange(size) - 1) // each
    first = np.arange(size) == 0
    return (group[:, None] == group) | first | first[:, None]


def dense(size=6):
    return np.ones((size, size), bool)


PATTERNS = {
    "chain": chain_with_hubs,
    "lattice": lattice,
    "groups": groups,
    "dense": dense,
    "one": lambda: dense(1),
}
LARGER = ("chain", "lattice")  # take a second or two to compile
CASES = [
    pytest.param(name, marks=[pytest.mark.integration] * (name in LARGER)) for name in PATTERNS
]


def precision(pattern, seed=0):
    """A positive definite matrix with the pattern."""
    noise = normal(seed, *pattern.shape)
    a = np.where(pattern, noise + noise.T, 0)
    return a + np.diag(np.abs(a).sum(0) + 1)


@pytest.fixture(autouse=True, scope="module")
def always_sparse():
    """At these sizes a dense factorisation would be the cheaper one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_BLOCK_OVERHEAD", 0)
        yield


def as_blocks(arrow, matrix):
    rows, columns = np.nonzero(np.ones_like(matrix, bool))
    places = arrow.places
    keep = (matrix[rows, columns] != 0) & (places[rows] >= places[columns])
    index = blocked.flat_index(arrow, places[rows[keep]], places[columns[keep]])
    flat = np.zeros(blocked.num_flat(arrow))
    flat[index] = matrix[rows[keep], columns[keep]]
    flat[blocked.empty_slots(arrow)] = 1
    blocks = blocked.to_blocks(arrow, jnp.asarray(flat))
    both = jnp.tril(blocks.diagonal) + jnp.swapaxes(jnp.tril(blocks.diagonal, -1), 1, 2)
    corner = jnp.tril(blocks.corner) + jnp.tril(blocks.corner, -1).T
    return blocks._replace(diagonal=both, corner=corner)


@pytest.mark.cases(rest=None, integration=["groups"], slow=["dense"])
@pytest.mark.parametrize("name", CASES)
def test_its_factor_is_the_dense_one_in_its_order(name, x64):
    pattern = PATTERNS[name]()
    found = sparsity(pattern)
    matrix = precision(pattern)
    factor = jax.jit(blocked.cholesky, static_argnums=0)(
        found.arrow, as_blocks(found.arrow, matrix)
    )
    log_diag, lower = found.entries(factor)
    order = np.argsort(found.arrow.places)
    expected = np.linalg.cholesky(matrix[np.ix_(order, order)])
    rank = np.argsort(np.argsort(found.arrow.places))  # of each latent, empty slots left out
    np.testing.assert_allclose(log_diag, np.log(np.diag(expected))[rank], rtol=1e-12)
    ranks = np.full(max(found.arrow.places) + 1, -1)
    ranks[found.arrow.places] = rank
    rows = ranks[list(found.rows)]
    columns = ranks[list(found.columns)]
    np.testing.assert_allclose(lower, expected[rows, columns], rtol=1e-9, atol=1e-13)
    expected[rows, columns] = 0
    np.testing.assert_allclose(np.tril(expected, -1), 0, atol=1e-13)


@pytest.mark.cases(rest=None, integration=["groups"], slow=["dense"])
@pytest.mark.parametrize("name", CASES)
def test_densities_and_samples_are_those_of_the_dense_gaussian(name, x64):
    pattern = PATTERNS[name]()
    family = vi.families.sparse_precision(len(pattern), pairs=np.argwhere(pattern))
    found = sparsity(pattern)
    matrix = precision(pattern, seed=1)
    log_diag, lower = found.entries(blocked.cholesky(found.arrow, as_blocks(found.arrow, matrix)))
    loc = normal(2, len(pattern))
    q = family.guide({"loc": jnp.asarray(loc), "log_diag": log_diag, "lower": lower})
    covariance = np.linalg.inv(matrix)
    found_covariance = jax.jit(lambda q: q.covariance_matrix)(q)
    np.testing.assert_allclose(found_covariance, covariance, rtol=1e-9, atol=1e-12)
    z = normal(3, 4, len(pattern))
    oracle = stats.multivariate_normal(loc, covariance)
    np.testing.assert_allclose(jax.jit(q.log_prob)(jnp.asarray(z)), oracle.logpdf(z), rtol=1e-10)
    draws = jax.jit(lambda key: q.sample(key, (4000,)))(jax.random.key(0))
    assert_mean(draws, loc)
    centred = draws - loc
    before = np.roll(np.arange(len(loc)), 1)
    assert_mean(centred * centred[:, before], covariance[np.arange(len(loc)), before])
    gap = jax.jit(lambda q, z: blocked.solve_lower(found.arrow, q.factor, z))(q, z[0])
    np.testing.assert_allclose(gap @ gap, z[0] @ covariance @ z[0], rtol=1e-10)


def test_what_is_sparse_is_factorised_so():
    chain = sparsity(chain_with_hubs(700)).arrow
    assert (chain.width, len(chain.border), chain.chained) == (1, 2, True)
    grouped = sparsity(groups(181)).arrow
    assert (grouped.width, grouped.border, grouped.chained) == (3, (0,), False)
    assert len(sparsity(chain_with_hubs(700)).rows) < 3 * 700
    assert sparsity(lattice(20)).arrow.width < 30
    assert sparsity(dense(40)).arrow.is_dense


@pytest.mark.integration
def test_a_matrix_that_is_not_positive_definite_has_no_factor():
    found = sparsity(groups())
    factor = blocked.cholesky(found.arrow, as_blocks(found.arrow, -precision(groups())))
    assert not np.isfinite(blocked.log_det(found.arrow, factor))


@pytest.mark.parametrize("numbers", [{"bandwidth": -1}, {"border": 4}, {"pairs": [(0, 3)]}])
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(ValueError, match="sparse_precision expects"):
        vi.families.sparse_precision(3, **numbers)
