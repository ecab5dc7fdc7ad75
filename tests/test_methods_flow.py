"""The flow: exact where the target is Gaussian, near where it bends, wherever it lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vi_jax as vi
from vi_jax.methods import flow
from vi_jax.methods.flow import _rate

normal = jax.scipy.stats.norm.logpdf


def gaussian(u):
    return -0.5 * jnp.sum(((u - jnp.array([30.0, -1.0])) / jnp.array([4.0, 0.01])) ** 2) + 2.0


def banana(u):  # of the benchmark of flows
    return normal(u[0]) + normal(u[1], 0.5 * u[0] ** 2 - 0.5, 0.5)


def funnel(u):
    return normal(u[0], 0.2) + jnp.sum(normal(u[1:], 0.0, jnp.exp(u[0])))


def far(u):
    return banana(jnp.array([(u[0] - 300) / 50, 1000 * u[1]]))


@pytest.mark.integration
def test_on_a_gaussian_it_begins_at_the_answer_and_stays():
    method = flow(num_draws=8)

    @jax.jit
    def two(key):
        key_init, *keys = jax.random.split(key, 3)
        first = method.init(key_init, gaussian, jnp.zeros(2))
        state, info = method.step(keys[0], gaussian, first)
        return first, state, info, method.step(keys[1], gaussian, state)[1]

    first, state, *infos = two(jax.random.key(0))
    evidence = 2.0 + np.log(2 * np.pi * 4.0 * 0.01)
    np.testing.assert_allclose(infos[0].value, evidence, atol=5e-3)  # the integrand is constant
    # Adam makes a step of its full size of rounding errors
    np.testing.assert_allclose(infos[1].value, evidence, atol=0.1)
    assert infos[1].evaluations - infos[0].evaluations == 8
    assert infos[0].evaluations > 8  # those of the Gaussian before
    np.testing.assert_allclose(first.loc, [30.0, -1.0], rtol=1e-3)
    np.testing.assert_allclose(jnp.diagonal(first.root), [4.0, 0.01], rtol=1e-2)
    q = method.guide(state)
    z, log_q = q.sample_and_log_prob(jax.random.key(1), (5,))
    np.testing.assert_allclose(q.sample(jax.random.key(1), (5,)), z, rtol=1e-5)
    np.testing.assert_allclose(q.log_prob(z), log_q, rtol=1e-3)


@pytest.mark.integration
def test_a_banana_is_met():
    result = vi.fit(
        jax.random.key(0),
        vi.targets.from_log_density(banana, 2),
        flow(num_draws=128, num_steps=1000),
    )
    # -KL(q, p); full rank is at -0.35
    assert result.diagnostics.elbo > -0.01 - 3 * result.diagnostics.elbo_stderr
    assert result.diagnostics.k_hat < 0.7
    assert result.converged


@pytest.mark.slow
def test_the_weights_on_a_funnel_are_better_than_those_of_full_rank():
    target = vi.targets.from_log_density(funnel, 6)
    bad, good = (
        vi.fit(jax.random.key(0), target, method).diagnostics
        for method in (vi.methods.bam(), flow())
    )
    assert good.k_hat < bad.k_hat
    assert good.effective > 3800 > 1000 > bad.effective  # of 4000
    assert good.elbo > -0.02 > -1.0 > bad.elbo


@pytest.mark.slow
def test_a_banana_far_away_is_met_too():
    result = vi.fit(jax.random.key(0), vi.targets.from_log_density(far, 2), flow())
    np.testing.assert_allclose(result.diagnostics.elbo, np.log(50 / 1000), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("family", [vi.families.iaf, vi.families.planar])
def test_flows_without_a_cheap_inverse_take_plain_gradients(family):
    method = flow(family, estimator=None, start=vi.methods.pathfinder(), num_steps=1000)
    result = vi.fit(jax.random.key(0), vi.targets.from_log_density(banana, 2), method)
    assert result.diagnostics.elbo > -0.15


def test_a_rate_falls_to_0_at_each_restart():
    rate = _rate(0.1, (0, 10, 30))
    values = np.array([float(rate(step)) for step in range(31)])
    np.testing.assert_allclose(values[:6], 0.1, rtol=1e-6)
    np.testing.assert_allclose(values[9], 0.02, rtol=1e-5)
    np.testing.assert_allclose(values[10:21], 0.1, rtol=1e-6)
    np.testing.assert_allclose(values[30], 0.0, atol=1e-8)
    # without restarts as it was: half constant, half falling
    np.testing.assert_allclose(float(_rate(0.1, (0, 4))(3)), 0.05, rtol=1e-5)
