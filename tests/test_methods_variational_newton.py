"""Variational online Newton with sparse Hessians: exact on Gaussians, corrections by their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from scipy import stats

import vi_jax as vi
from vi_jax.families.sparse_precision import Sparsity
from vi_jax.methods._cubic_guide import CubicNormal, corrections
from vi_jax.optimise import curvature
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse import order
from vi_jax.sparse.arrow import Arrow

NUM_LOCAL = 8
COUPLING = 0.3 * normal(0, NUM_LOCAL, 2)


def pattern():
    """Eight latents that touch two others, and these each other."""
    touches = np.eye(NUM_LOCAL + 2, dtype=bool)
    touches[-2:] = True
    touches[:, -2:] = True
    return touches


PRECISION = np.where(pattern(), 0.2, 0) + np.diag(np.linspace(1, 5, NUM_LOCAL + 2) ** 2)


def gaussian(u):
    return -0.5 * (u - 1) @ jnp.asarray(PRECISION, u.dtype) @ (u - 1)


@pytest.fixture(scope="module")
def made():
    """Sparse, though at this size a dense factorisation would be the cheaper one."""
    arrow = Arrow(tuple(range(NUM_LOCAL)), (NUM_LOCAL, NUM_LOCAL + 1), width=1, chained=False)
    rows, columns = order.fill(arrow, pattern())
    found = Sparsity(arrow, tuple(rows.tolist()), tuple(columns.tolist()))
    return curvature.Curvature(found, curvature.colour(pattern()))


@pytest.mark.integration
def test_a_sparse_gaussian_is_met_exactly(made, x64):
    target = vi.targets.from_log_density(gaussian, NUM_LOCAL + 2)
    result = vi.fit(jax.random.key(0), target, vi.methods.variational_newton(made))
    q = result.guide
    assert (len(made.arrow.border), made.colouring.num_colours) == (2, 3)
    assert result.converged
    np.testing.assert_allclose(q.mean, 1.0, atol=1e-6)
    factor = jax.vmap(lambda e: blocked.times_upper(made.arrow, q.factor, e))(
        jnp.eye(NUM_LOCAL + 2)
    )
    np.testing.assert_allclose(factor @ factor.T, PRECISION, atol=1e-6)
    np.testing.assert_allclose(q.shape, 0, atol=1e-6)
    np.testing.assert_allclose(q.scale, 0, atol=1e-8)
    np.testing.assert_allclose(q.bend, 0, atol=1e-8)
    evidence = 0.5 * (NUM_LOCAL + 2) * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1]
    np.testing.assert_allclose(result.diagnostics.elbo, evidence, rtol=1e-6)


def some_guide(made):
    size = NUM_LOCAL + 2
    last = np.array(made.arrow.border)
    after = made.arrow.places[:, None] < made.arrow.places[last]
    scale = np.where(after, 0.3 * normal(1, size, 2), 0)
    bend = np.where(after[:, [0, 0, 1]] & after[:, [0, 1, 1]], 0.2 * normal(2, size, 3), 0)
    return CubicNormal(
        jnp.asarray(normal(3, size)),
        jnp.asarray(0.2 * normal(4, size)),
        jnp.asarray(0.3 * normal(5, len(made.sparsity.rows))),
        jnp.asarray(0.3 * normal(6, size)),
        jnp.asarray(scale),
        jnp.asarray(bend),
        jnp.array([[0, 0], [0, 1], [1, 1]]),
        made.sparsity,
    )


def test_its_guide_has_the_density_of_its_samples(made, x64):
    q = some_guide(made)
    eps = jnp.asarray(normal(7, NUM_LOCAL + 2))
    slope = np.asarray(jax.jit(jax.jacfwd(q.transport))(eps))
    expected = stats.norm.logpdf(eps).sum() - np.linalg.slogdet(slope)[1]
    log_q = jax.jit(lambda eps: q.log_prob(q.transport(eps)))(eps)
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)


@pytest.mark.integration
def test_corrections_are_the_third_derivatives_in_the_guides_coordinates(made, x64):
    def density(u):
        local = u[:NUM_LOCAL]
        cubic = jnp.sum(local**2 * (COUPLING @ u[NUM_LOCAL:])) + jnp.sum(local) * u[-2] * u[-1]
        return gaussian(u) + 0.3 * cubic + 0.1 * u[-1] ** 3

    mean = jnp.zeros(NUM_LOCAL + 2)
    precision = jnp.asarray(PRECISION[made.colouring.rows, made.colouring.columns])
    scale, bend, order_of = jax.jit(lambda: corrections(density, mean, precision, made))()
    assert sorted(order_of.tolist()) == [[0, 0], [0, 1], [1, 1]]
    bend = bend[:, np.lexsort(order_of.T[::-1])]
    places = made.arrow.places
    ranked = np.argsort(places)
    factor = np.linalg.cholesky(PRECISION[np.ix_(ranked, ranked)])[np.ix_(places, places)]
    root = np.linalg.inv(factor).T  # u of y
    third = np.asarray(jax.jacfwd(jax.hessian(density))(mean))
    third = np.einsum("abc,ai,bj,ck->ijk", third, root, root, root)
    b = np.array(made.arrow.border)
    for latent in range(NUM_LOCAL):
        np.testing.assert_allclose(scale[latent], 0.5 * third[latent, latent, b], atol=1e-10)
        pairs = [0.5 * third[latent, b[0], b[0]], third[latent, b[0], b[1]]]
        pairs += [0.5 * third[latent, b[1], b[1]]]
        np.testing.assert_allclose(bend[latent], pairs, atol=1e-10)
    np.testing.assert_allclose(scale[b[1]], 0)
    np.testing.assert_allclose(scale[b[0], 0], 0)
    np.testing.assert_allclose(scale[b[0], 1], 0.5 * third[b[0], b[0], b[1]], atol=1e-10)
