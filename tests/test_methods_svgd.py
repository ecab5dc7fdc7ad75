"""Stein variational gradient descent: its direction typed as a double sum, its particles against
known moments.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi
from vi_jax.methods.svgd import Particles, bandwidth, squared_distances, stein_direction, svgd

MEAN = jnp.array([5.0, -1.0])
SCALE = jnp.array([2.0, 0.5])


def gaussian(u):
    return -0.5 * jnp.sum(((u - MEAN) / SCALE) ** 2)


def two_modes(u):
    return jnp.logaddexp(-0.5 * jnp.sum((u - 2.0) ** 2), -0.5 * jnp.sum((u + 2.0) ** 2))


@pytest.mark.integration
def test_the_direction_is_equation_8_by_autodiff(x64):
    particles = jax.random.normal(jax.random.key(0), (7, 3)) + 1.0
    scores = jax.random.normal(jax.random.key(1), (7, 3))
    distances = jnp.linalg.norm(particles[:, None] - particles, axis=-1)[jnp.triu_indices(7, 1)]
    h = jnp.median(distances) ** 2 / jnp.log(7)
    np.testing.assert_allclose(bandwidth(squared_distances(particles)), h, rtol=1e-6)

    def k(u, v):
        return jnp.exp(-jnp.sum((u - v) ** 2) / h)

    for i in range(7):
        phi = (
            sum(
                k(particles[j], particles[i]) * scores[j] + jax.grad(k)(particles[j], particles[i])
                for j in range(7)
            )
            / 7
        )
        np.testing.assert_allclose(stein_direction(particles, scores)[i], phi, rtol=1e-6)


@pytest.mark.integration
def test_coincident_particles_climb_together(x64):
    same = jnp.zeros((1, 2)) + jnp.array([[0.3, 0.4]])
    np.testing.assert_allclose(
        stein_direction(jnp.tile(same, (4, 1)), jnp.tile(same, (4, 1)))[0], same[0], rtol=1e-9
    )


@pytest.mark.integration
def test_moments_of_a_gaussian_are_recovered():
    result = vi.fit(
        jax.random.key(0),
        vi.targets.from_log_density(gaussian, 2),
        svgd(num_particles=100, num_steps=600),
    )
    particles = result.guide.particles
    np.testing.assert_allclose((particles.mean(0) - MEAN) / SCALE, 0, atol=0.03)
    np.testing.assert_allclose(particles.std(0) / SCALE, 1, atol=0.08)
    assert abs(result.diagnostics.elbo - jnp.log(2 * jnp.pi * SCALE.prod())) < 0.05
    assert result.history["value"][-1] > -0.05 > result.history["value"][0]
    # ten points and a neighbour of each to choose the start, then one for each particle and step
    assert result.evaluations == 20 + 100 * 600


@pytest.mark.integration
def test_the_guide_is_a_density_with_the_moments_of_the_particles():
    particles = jax.random.normal(jax.random.key(0), (50, 2)) * SCALE + MEAN
    q = Particles(particles)
    draws = q.sample(jax.random.key(1), (20_000,))
    np.testing.assert_allclose((draws.mean(0) - particles.mean(0)) / SCALE, 0, atol=0.05)
    np.testing.assert_allclose(
        jnp.cov(draws.T), jnp.cov(particles.T, bias=True), rtol=0.05, atol=0.03
    )
    side = jnp.linspace(-1, 1, 200)
    grid = jnp.stack(jnp.meshgrid(side * 8, side * 2.5, indexing="ij"), -1) + MEAN
    cell = (16 / 199) * (5 / 199)
    np.testing.assert_allclose(jnp.exp(jax.jit(q.log_prob)(grid)).sum() * cell, 1, atol=0.01)


@pytest.mark.slow
def test_both_modes_keep_particles():
    result = vi.fit(jax.random.key(0), vi.targets.from_log_density(two_modes, 2), svgd(spread=3.0))
    share = jnp.mean(result.guide.particles.sum(1) > 0)
    assert 0.3 < share < 0.7


@pytest.mark.slow
def test_it_takes_minibatches():
    x = np.random.default_rng(0).normal(1.5, 1.0, 1000).astype(np.float32)
    normal = jax.scipy.stats.norm.logpdf
    target = vi.targets.from_rows(
        lambda z: normal(z[0], 0.0, 10.0),
        lambda z, rows: normal(rows, z[0]),
        jnp.asarray(x),
        1,
        batch_size=100,
    )
    particles = vi.fit(jax.random.key(0), target, svgd(num_particles=50)).guide.particles
    assert abs(particles.mean() - x.mean()) < 0.03
