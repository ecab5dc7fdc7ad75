"""Methods that match scores: the equations that a step solves, and the posterior by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from methods_helpers import logistic, quadrature, run

import vi_jax as vi
from vi_jax.families.low_rank import LowRankNormal
from vi_jax.methods.bam_low_rank import Covariance, matched, patched
from vi_jax.methods.gsm import move
from vi_jax.methods.pathfinder import FactoredNormal

RNG = np.random.default_rng(0)


@pytest.mark.integration
def test_a_move_of_gsm_matches_the_score_at_its_draw(x64):
    root = RNG.normal(size=(4, 4))
    mean = jnp.asarray(RNG.normal(size=4))
    covariance = jnp.asarray(root @ root.T)
    z = jnp.asarray(RNG.normal(size=4))
    g = jnp.asarray(RNG.normal(size=4))
    shift, change = move(z, g, mean, covariance)
    np.testing.assert_allclose(
        jnp.linalg.solve(covariance + change, mean + shift - z), g, rtol=1e-9
    )
    # of all Gaussians with that score it is the nearest: the reverse KL grows along the constraint
    assert np.linalg.eigvalsh(covariance + change).min() > 0


@pytest.mark.integration
def test_a_match_of_low_rank_solves_the_equation_of_the_dense_one(x64):
    size = 6
    draws = 4
    rank = 2
    w = 3.0
    z, g, mean = (
        jnp.asarray(RNG.normal(size=shape)) for shape in ((draws, size), (draws, size), size)
    )
    factor = jnp.asarray(RNG.normal(size=(size, rank)))
    variances = jnp.asarray(RNG.uniform(0.5, 2, size=size))
    new_mean, parts = matched(z, g, mean, factor, variances, jnp.asarray(w))
    sigma = parts.times(jnp.eye(size))
    share = w / (1 + w)
    e = z - z.mean(0)
    r = g - g.mean(0)
    u = w * r.T @ r / draws + share * np.outer(g.mean(0), g.mean(0))
    v = (
        np.diag(variances)
        + factor @ factor.T
        + w * e.T @ e / draws
        + share * np.outer(mean - z.mean(0), mean - z.mean(0))
    )
    np.testing.assert_allclose(sigma @ u @ sigma + sigma, v, atol=1e-9)
    np.testing.assert_allclose(
        new_mean, (mean + w * (sigma @ g.mean(0) + z.mean(0))) / (1 + w), atol=1e-9
    )
    np.testing.assert_allclose(parts.diag(), np.diag(sigma), atol=1e-9)


def chain(u):
    """N(1, .) whose precision has 2 on the diagonal (1.5 at its ends) and -1/2 beside it."""
    return -0.5 * jnp.sum((u - 1) ** 2) - 0.25 * jnp.sum(jnp.diff(u) ** 2)


@pytest.mark.integration
def test_a_match_of_low_rank_keeps_its_digits_in_float32(x64):
    """By differences it had eigenvalues of -11 where the true least is 0.28."""
    factor = 0.06 * RNG.normal(size=(300, 8))
    z = 1 + RNG.normal(size=(16, 8)) @ factor.T + 0.6 * RNG.normal(size=(16, 300))
    arrays = (
        z,
        np.asarray(jax.vmap(jax.grad(chain))(jnp.asarray(z))),
        np.ones(300),
        factor,
        np.full(300, 0.36),
    )

    def sigma(dtype):
        mean, parts = matched(
            *(jnp.asarray(array, dtype) for array in arrays), jnp.asarray(50.0, dtype)
        )
        return (
            np.asarray(mean),
            np.asarray(parts.times(jnp.eye(300, dtype=dtype))),
            np.asarray(parts.form(jnp.eye(300, dtype=dtype))),
        )

    single = sigma(jnp.float32)
    double = sigma(jnp.float64)
    for found, exact in zip(single, double, strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-3)
    np.testing.assert_allclose(double[2], double[1], atol=1e-9)
    assert np.linalg.eigvalsh(single[2].astype(float)).min() > 0.2


def a_chain_of_three_hundred():
    log_z = (
        300 / 2 * np.log(2 * np.pi)
        - 0.5 * np.linalg.slogdet(-np.asarray(jax.hessian(chain)(jnp.ones(300))))[1]
    )
    result = vi.fit(
        jax.random.key(0),
        vi.targets.from_log_density(chain, 300),
        vi.methods.bam_low_rank(num_matches=40, num_steps=60),
    )
    assert result.skipped == 0
    # its 8 directions cannot hold 300 that are alike
    assert log_z - 15 < result.diagnostics.elbo < log_z


@pytest.mark.integration
def test_low_rank_at_three_hundred_latents():
    a_chain_of_three_hundred()


@pytest.mark.integration
def test_low_rank_at_three_hundred_latents_in_float64(x64):
    a_chain_of_three_hundred()


@pytest.mark.integration
def test_low_rank_starts_from_the_gaussian_of_pathfinder(x64):
    basis, _ = jnp.linalg.qr(jnp.asarray(RNG.normal(size=(20, 2))))
    scale = jnp.asarray(RNG.uniform(0.5, 2, size=20))
    root = jnp.asarray([[3.0, 0.0], [1.0, 2.0]])
    q = FactoredNormal(jnp.arange(20.0), scale, basis, root)
    method = vi.methods.bam_low_rank(start=q, rank=2, num_em=3000)
    started = method.guide(method.init(jax.random.key(0), None, jnp.zeros(20)))
    np.testing.assert_array_equal(started.mean, q.mean)
    # S (I + Q (L L' - I) Q') S with L L' > I is low rank plus diagonal exactly
    np.testing.assert_allclose(
        jnp.diagonal(started.covariance_matrix), jnp.diagonal(q.covariance_matrix), rtol=1e-3
    )
    np.testing.assert_allclose(vi.kl_divergence(dense(q), dense(started)), 0, atol=1e-3)


def dense(q):
    return dist.MultivariateNormal(q.mean, q.covariance_matrix)


@pytest.mark.integration
def test_a_patch_finds_the_low_rank_that_is_there(x64):
    factor = jnp.asarray(RNG.normal(size=(20, 2)))
    variances = jnp.asarray(RNG.uniform(0.5, 2, size=20))
    scale = jnp.sqrt(variances)
    basis, r = jnp.linalg.qr(factor / scale[:, None])
    parts = Covariance(scale, basis, jnp.linalg.cholesky(jnp.eye(2) + r @ r.T))
    w, v = patched(parts, jnp.asarray(RNG.normal(size=(20, 2))), 3000)
    np.testing.assert_allclose(w @ w.T, factor @ factor.T, atol=1e-4)
    np.testing.assert_allclose(v, variances, atol=1e-4)


@pytest.mark.integration
def test_low_rank_at_a_hundred_latents():
    factor = jnp.asarray(RNG.normal(size=(100, 3)), jnp.float32)
    variances = jnp.asarray(RNG.uniform(0.1, 1, 100), jnp.float32)
    p = LowRankNormal(jnp.linspace(-3, 3, 100), factor, variances)
    method = vi.methods.bam_low_rank(rank=4)
    state, info, _ = run(jax.random.key(0), method, p.log_prob, np.zeros(100))
    assert info.done
    assert vi.kl_divergence(method.guide(state), p) < 0.5
    assert info.evaluations < 6000


METHODS = {"gsm": vi.methods.gsm(), "bam_low_rank": vi.methods.bam_low_rank()}


@pytest.mark.integration
@pytest.mark.parametrize("name", METHODS)
def test_a_posterior_that_is_not_gaussian(name):
    mean, covariance, _ = quadrature()
    state, info, _ = run(jax.random.key(0), METHODS[name], logistic, np.zeros(2))
    assert info.done
    q = METHODS[name].guide(state)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((q.mean - mean) / sd, 0, atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(q.covariance_matrix)) / sd, 1, atol=0.12)
