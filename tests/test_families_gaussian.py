"""Structured Gaussians against scipy with the covariance that each states, and against what each is
for.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_mean, normal
from jax.flatten_util import ravel_pytree
from scipy import linalg, stats

import vi_jax as vi

TREE = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(()), "c": jnp.zeros(3)}


def some_params(family, seed=0, size=0.5):
    row, unravel = ravel_pytree(family.init(jax.random.key(0)))
    return unravel(jnp.asarray(size * normal(seed, row.size), row.dtype))


def tril(log_diag, lower):
    matrix = np.diag(np.exp(log_diag))
    matrix[np.tril_indices(len(log_diag), -1)] = lower  # by rows
    return matrix


def low_rank_covariance(params):
    return np.diag(np.exp(2 * params["log_scale"])) + params["factor"] @ params["factor"].T


def rank_one_covariance(params):
    return np.linalg.inv(
        np.diag(np.exp(-2 * params["log_scale"])) + np.outer(params["u"], params["u"])
    )


def block_covariance(params):
    ends = np.cumsum([4, 1, 3])
    blocks = [
        tril(row, low)
        for row, low in zip(np.split(params["log_diag"], ends[:-1]), params["lower"], strict=True)
    ]
    return linalg.block_diag(*[block @ block.T for block in blocks])


def chain_covariance(params):
    steps, width = params["log_diag"].shape
    factor = np.zeros((steps * width, steps * width))
    for t in range(steps):
        at = slice(t * width, (t + 1) * width)
        factor[at, at] = tril(params["log_diag"][t], params["lower"][t])
        if t + 1 < steps:
            factor[slice((t + 1) * width, (t + 2) * width), at] = params["below"][t]
    return np.linalg.inv(factor @ factor.T)


CASES = {
    "low_rank": (lambda: vi.families.low_rank(5, rank=2), low_rank_covariance),
    "low_rank of more than D": (lambda: vi.families.low_rank(2, rank=3), low_rank_covariance),
    "rank_one_precision": (lambda: vi.families.rank_one_precision(5), rank_one_covariance),
    "block_diagonal": (lambda: vi.families.block_diagonal(TREE), block_covariance),
    "gaussian_markov_chain": (
        lambda: vi.families.gaussian_markov_chain(12, num_steps=4),
        chain_covariance,
    ),
    "gaussian_markov_chain of numbers": (
        lambda: vi.families.gaussian_markov_chain(5),
        chain_covariance,
    ),
}


@pytest.mark.cases(
    rest="slow",
    default=["rank_one_precision"],
    integration=["low_rank", "block_diagonal", "gaussian_markov_chain"],
)
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_gaussian_that_it_states(case, x64):
    make, covariance = CASES[case]
    family = make()
    params = some_params(family)
    expected = covariance(jax.tree.map(np.asarray, params))
    q = family.guide(params)
    q = getattr(q, "base", q)
    z = normal(1, 6, len(expected))
    oracle = stats.multivariate_normal(np.asarray(params["loc"]), expected)
    np.testing.assert_allclose(jax.jit(q.log_prob)(jnp.asarray(z)), oracle.logpdf(z), rtol=1e-9)
    draws = jax.jit(q.sample, static_argnums=1)(jax.random.key(3), (10_000,))
    centred = draws - params["loc"]
    assert_mean(draws, params["loc"])
    assert_mean(centred[:, :, None] * centred[:, None, :], expected)
    if hasattr(q, "covariance_matrix"):
        np.testing.assert_allclose(q.covariance_matrix, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.integration
def test_the_factor_of_a_rank_one_precision_is_exact_where_the_paper_divides_zero_by_zero(x64):
    for scale in (0.0, 1e-9, 1e3):
        q = vi.families.rank_one_precision(3).guide(
            {
                "loc": jnp.zeros(3),
                "log_scale": jnp.array([0.1, -0.3, 0.5]),
                "u": scale * jnp.array([1.0, -2.0, 0.5]),
            }
        )
        factor = jax.jacfwd(q.transport)(jnp.zeros(3))
        np.testing.assert_allclose(factor @ factor.T, q.covariance_matrix, rtol=1e-8, atol=1e-14)


def test_blocks_do_not_see_each_other(x64):
    q = vi.families.block_diagonal(TREE).guide(some_params(vi.families.block_diagonal(TREE)))
    hessian = jax.jit(jax.jacfwd(jax.grad(q.base.log_prob)))(jnp.zeros(8))
    block = np.repeat([0, 1, 2], [4, 1, 3])
    other = block[:, None] != block[None, :]
    np.testing.assert_array_equal(np.asarray(hessian)[other], 0.0)
    assert (np.asarray(hessian)[~other] != 0.0).all()


def test_a_chain_couples_neighbours_in_its_precision_and_all_in_its_covariance(x64):
    family = vi.families.gaussian_markov_chain(jnp.zeros((4, 2)))
    params = some_params(family)
    hessian = np.asarray(
        jax.jit(jax.jacfwd(jax.grad(family.guide(params).base.log_prob)))(jnp.zeros(8))
    )
    step = np.repeat(np.arange(4), 2)
    far = np.abs(step[:, None] - step[None, :]) > 1
    np.testing.assert_allclose(hessian[far], 0.0, atol=1e-12)
    assert (np.abs(hessian[~far]) > 1e-3).all()
    assert (np.abs(chain_covariance(jax.tree.map(np.asarray, params))[far]) > 1e-6).all()


def test_a_long_chain_is_not_unrolled():
    def program(steps):
        family = vi.families.gaussian_markov_chain(steps)
        params = jax.eval_shape(family.init, jax.random.key(0))

        def draw_and_density(params, key):
            q = family.guide(params)
            return q.log_prob(q.sample(key))

        return len(jax.make_jaxpr(draw_and_density)(params, jax.random.key(0)).eqns)

    assert program(500) == program(5)


@pytest.mark.parametrize(
    ("example", "num_steps"),
    [
        (7, 3),
        (6, 0),
        ({"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)}, None),
        (jnp.zeros(()), None),
        (jnp.zeros((3, 2)), 2),
    ],
)
def test_steps_that_do_not_fit_are_refused(example, num_steps):
    with pytest.raises(ValueError, match="gaussian_markov_chain expects"):
        vi.families.gaussian_markov_chain(example, num_steps=num_steps)


@pytest.mark.integration
def test_low_rank_keeps_its_digits_in_float32():
    """With a factor 300 times the diagonal, Woodbury's difference of two numbers of 1e5 would leave
    an error of about 0.01.
    """
    params = {
        "loc": np.zeros(40),
        "log_scale": np.full(40, np.log(0.01)),
        "factor": normal(0, 40, 2) * 3.0,
    }
    z = params["factor"] @ np.array([0.7, -1.1]) + 0.01 * normal(1, 40)
    guide = vi.families.low_rank(40, rank=2).guide
    with jax.enable_x64(True):
        exact = float(guide(jax.tree.map(jnp.asarray, params)).log_prob(jnp.asarray(z)))
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, z))
    np.testing.assert_allclose(float(guide(single[0]).log_prob(single[1])), exact, atol=0.02)


@pytest.mark.integration
def test_low_rank_has_its_kl_in_closed_form(x64):
    q = vi.families.low_rank(4, rank=2).guide(some_params(vi.families.low_rank(4, rank=2)))
    p = vi.families.mean_field(4).guide(some_params(vi.families.mean_field(4), seed=2))
    estimate = jax.jit(lambda key: vi.kl.kl_monte_carlo(key, q, p, num_samples=20_000))(
        jax.random.key(0)
    )
    assert abs(vi.kl_divergence(q, p) - estimate.value) < 5 * estimate.stderr


def test_a_rank_of_none_is_refused():
    with pytest.raises(ValueError, match="rank of at least 1; got 0"):
        vi.families.low_rank(3, rank=0)
