"""Methods that match scores: the equations that a step solves, and the posterior by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_helpers import logistic, quadrature, run

import vi_jax as vi
from vi_jax.families.low_rank import LowRankNormal
from vi_jax.methods.bam_low_rank import Covariance, matched, patched
from vi_jax.methods.gsm import move

RNG = np.random.default_rng(0)


def test_a_move_of_gsm_matches_the_score_at_its_draw(x64):
    root = RNG.normal(size=(4, 4))
    mean, covariance = jnp.asarray(RNG.normal(size=4)), jnp.asarray(root @ root.T)
    z, g = jnp.asarray(RNG.normal(size=4)), jnp.asarray(RNG.normal(size=4))
    shift, change = move(z, g, mean, covariance)
    np.testing.assert_allclose(jnp.linalg.solve(covariance + change, mean + shift - z), g, rtol=1e-9)
    # of all Gaussians with that score it is the nearest: the reverse KL grows along the constraint
    assert np.linalg.eigvalsh(covariance + change).min() > 0


def test_a_match_of_low_rank_solves_the_equation_of_the_dense_one(x64):
    size, draws, rank, w = 6, 4, 2, 3.0
    z, g, mean = (jnp.asarray(RNG.normal(size=shape)) for shape in ((draws, size), (draws, size), size))
    factor, variances = jnp.asarray(RNG.normal(size=(size, rank))), jnp.asarray(RNG.uniform(0.5, 2, size=size))
    new_mean, parts = matched(z, g, mean, factor, variances, jnp.asarray(w))
    sigma = parts.times(jnp.eye(size))
    share, e, r = w / (1 + w), z - z.mean(0), g - g.mean(0)
    u = w * r.T @ r / draws + share * np.outer(g.mean(0), g.mean(0))
    v = np.diag(variances) + factor @ factor.T + w * e.T @ e / draws + share * np.outer(mean - z.mean(0), mean - z.mean(0))
    np.testing.assert_allclose(sigma @ u @ sigma + sigma, v, atol=1e-9)
    np.testing.assert_allclose(new_mean, (mean + w * (sigma @ g.mean(0) + z.mean(0))) / (1 + w), atol=1e-9)
    np.testing.assert_allclose(parts.diag(), np.diag(sigma), atol=1e-9)


def test_a_patch_finds_the_low_rank_that_is_there(x64):
    factor, variances = jnp.asarray(RNG.normal(size=(20, 2))), jnp.asarray(RNG.uniform(0.5, 2, size=20))
    scale = jnp.sqrt(variances)
    basis, r = jnp.linalg.qr(factor / scale[:, None])
    parts = Covariance(scale, basis, jnp.linalg.cholesky(jnp.eye(2) + r @ r.T))
    w, v = patched(parts, jnp.asarray(RNG.normal(size=(20, 2))), 3000)
    np.testing.assert_allclose(w @ w.T, factor @ factor.T, atol=1e-4)
    np.testing.assert_allclose(v, variances, atol=1e-4)


def test_low_rank_at_a_hundred_latents():
    factor, variances = jnp.asarray(RNG.normal(size=(100, 3)), jnp.float32), jnp.asarray(RNG.uniform(0.1, 1, 100), jnp.float32)
    p = LowRankNormal(jnp.linspace(-3, 3, 100), factor, variances)
    method = vi.methods.bam_low_rank(rank=4)
    state, info, _ = run(jax.random.key(0), method, p.log_prob, np.zeros(100))
    assert info.done
    assert vi.kl_divergence(method.guide(state), p) < 0.5
    assert info.evaluations < 6000


METHODS = {"gsm": vi.methods.gsm(), "bam_low_rank": vi.methods.bam_low_rank()}


@pytest.mark.parametrize("name", METHODS)
def test_a_posterior_that_is_not_gaussian(name):
    mean, covariance, _ = quadrature()
    state, info, _ = run(jax.random.key(0), METHODS[name], logistic, np.zeros(2))
    assert info.done
    q = METHODS[name].guide(state)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((q.mean - mean) / sd, 0, atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(q.covariance_matrix)) / sd, 1, atol=0.12)
