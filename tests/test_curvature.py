"""Sparse Hessians: the coloured one is the dense one, and what is not sparse is told as dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal

from vi_jax.optimise import curvature
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse import order as ordering


def walk(u):
    """A random walk of a scale of its own, the first latent, seen with an error."""
    scale = jnp.exp(u[0])
    x = u[1:]
    steps = jnp.sum(jnp.diff(x) ** 2) / scale**2 + 2 * u[0] * x.size
    return -0.5 * steps - jnp.sum(jnp.cosh(x - 1)) - 0.5 * u[0] ** 2 - 0.5 * x[0] ** 2


def items(u):
    """Four items that meet eleven persons."""
    ability = u[:11]
    hard = u[11:]
    return -jnp.sum(jnp.logaddexp(0, ability[:, None] * hard)) - 3 * u @ u


def factored(u):
    """Nothing is zero."""
    return -jnp.logaddexp(0, u).sum() - 0.5 * u.sum() ** 2 - 0.5 * u @ u


DENSE = blocked.Arrow((), tuple(range(5)), 1, chained=False)
TARGETS = {"walk": (walk, 13, 4), "items": (items, 15, 5), "factored": (factored, 5, 5)}


@pytest.mark.cases(rest=None, slow=["factored"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.integration] * (name != "walk")) for name in TARGETS],
)
def test_the_coloured_hessian_is_the_dense_one(name, x64):
    density, size, num_colours = TARGETS[name]
    found = curvature.find(jax.random.key(0), density, jnp.zeros(size))
    made = curvature.curvature(found.pattern)
    assert made.colouring.num_colours == num_colours
    u = jnp.asarray(normal(0, size))
    value, gradient, values = jax.jit(lambda u: curvature.entries(density, u, made.colouring))(u)
    hessian = np.asarray(jax.hessian(density)(u))
    np.testing.assert_allclose(value, density(u), rtol=1e-12)
    np.testing.assert_allclose(gradient, jax.grad(density)(u), rtol=1e-10, atol=1e-12)
    got = np.zeros((size, size))
    got[made.colouring.rows, made.colouring.columns] = values
    np.testing.assert_allclose(got + np.tril(got, -1).T, hessian, rtol=1e-10, atol=1e-12)
    assert (found.pattern == (np.abs(hessian) > 0)).all()


@pytest.mark.cases(rest=None, integration=["items"], slow=["factored"])
@pytest.mark.parametrize("name", TARGETS)
def test_its_blocks_are_factorised_as_the_dense_one_is(name, x64, monkeypatch):
    monkeypatch.setattr(ordering, "_BLOCK_OVERHEAD", 0)
    monkeypatch.setattr(ordering, "_MAX_COST", 10.0)
    density, size, _ = TARGETS[name]
    u = jnp.asarray(0.3 * normal(0, size))
    hessian = np.asarray(jax.hessian(density)(u))
    made = curvature.curvature(np.abs(hessian) > 0)
    if name == "factored":
        made = made._replace(sparsity=made.sparsity._replace(arrow=DENSE))

    def solved(u, x):
        _, _, values = curvature.entries(density, u, made.colouring)
        factor = blocked.cholesky(made.arrow, curvature.blocks(made, -values))
        inside = blocked.solve_lower(made.arrow, factor, x)
        return blocked.solve_upper(made.arrow, factor, inside), blocked.log_det(made.arrow, factor)

    x = normal(1, size)
    solution, log_det = jax.jit(solved)(u, x)
    np.testing.assert_allclose(solution, np.linalg.solve(-hessian, x), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(2 * log_det, np.linalg.slogdet(-hessian)[1], rtol=1e-10)


def test_a_chain_takes_three_products_whatever_its_length():
    for size in (10, 200):
        where = np.arange(size)
        assert curvature.colour(np.abs(where[:, None] - where) <= 1).num_colours == 3


@pytest.mark.integration
def test_zeros_that_are_none_elsewhere_make_it_dense(x64, monkeypatch):
    """A pair that meets only on one side of a plane, at which no probe lay."""

    def density(u):
        return -0.5 * u @ u + jnp.where(u.sum() > 0, 0.0, 0.1 * u[0] * u[1])

    monkeypatch.setattr(curvature, "NUM_PROBES", 1)
    seen = set()
    for seed in range(6):
        found = curvature.find(jax.random.key(seed), density, jnp.zeros(4))
        seen.add(found.why)
        if "everywhere" in found.why:
            assert found.pattern.all()
    assert any("everywhere" in why for why in seen)


def test_a_density_that_is_not_finite_has_no_pattern():
    found = curvature.find(jax.random.key(0), lambda u: jnp.log(-1 - u @ u), jnp.zeros(3))
    assert found.pattern.all()
    assert "not finite" in found.why
