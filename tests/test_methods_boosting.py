"""Boosting: both modes, a rising ELBO, and a mixture that is a density."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.methods import boosting
from vi_jax.methods.boosting import LowRankMixture

normal = jax.scipy.stats.norm.logpdf


def two_modes(u):
    """0.3 N((100, 0), diag(10, 0.01)^2) + 0.7 N((40, 0.02), diag(10, 0.01)^2)."""
    x = jnp.array([u[0] / 10, u[1] / 0.01])
    log_p = [
        jnp.sum(normal(x, jnp.array(loc), 1.0)) + jnp.log(w)
        for loc, w in (((10.0, 0.0), 0.3), ((4.0, 2.0), 0.7))
    ]
    return jnp.logaddexp(*log_p) - jnp.log(0.1)


def banana(u):
    return normal(u[0]) + normal(u[1], 0.5 * u[0] ** 2 - 0.5, 0.5)


@pytest.mark.integration
def test_a_mixture_is_the_density_of_its_draws():
    rng = np.random.default_rng(0)
    params = {
        "loc": [[0.0, 1.0], [2.0, -1.0], [9.0, 9.0]],
        "log_scale": 0.3 * rng.standard_normal((3, 2)),
    }
    params |= {"factor": 0.5 * rng.standard_normal((3, 2, 1))}
    q = LowRankMixture(
        jnp.array([jnp.log(0.3), jnp.log(0.7), -jnp.inf]),
        jax.tree.map(jnp.float32, params, is_leaf=_is_list),
    )
    own = [
        dist.LowRankMultivariateNormal(
            q.params["loc"][k], q.params["factor"][k], jnp.exp(2 * q.params["log_scale"][k])
        )
        for k in (0, 1)
    ]
    z = jnp.array([1.5, -0.3])
    np.testing.assert_allclose(
        q.log_prob(z),
        jnp.log(0.3 * jnp.exp(own[0].log_prob(z)) + 0.7 * jnp.exp(own[1].log_prob(z))),
        rtol=1e-5,
    )
    side = jnp.linspace(-10, 10, 200)
    grid = jnp.stack(jnp.meshgrid(side, side, indexing="ij"), -1)
    p = jnp.exp(jax.jit(q.log_prob)(grid)) * (20 / 199) ** 2
    np.testing.assert_allclose(p.sum(), 1, atol=1e-3)
    draws = q.sample(jax.random.key(0), (20_000,))
    np.testing.assert_allclose(draws.mean(0), (p[..., None] * grid).sum((0, 1)), atol=0.05)
    np.testing.assert_allclose(
        draws.var(0), (p[..., None] * (grid - draws.mean(0)) ** 2).sum((0, 1)), rtol=0.05
    )


def _is_list(x):
    return isinstance(x, list)


@pytest.mark.integration
def test_both_modes_are_found():
    target = vi.targets.from_log_density(two_modes, 2)
    result = vi.fit(
        jax.random.key(0), target, boosting(num_components=3), start=jnp.array([95.0, 0.0])
    )
    assert abs(result.diagnostics.elbo) < 0.02  # -KL(q, p); one mode is at -0.36 or -1.2
    assert abs(jnp.mean(result.weighted.u[:, 0] > 70) - 0.3) < 0.05
    assert result.diagnostics.k_hat < 0.7


@pytest.mark.slow
def test_the_elbo_does_not_fall_with_components():
    result = vi.fit(
        jax.random.key(0),
        vi.targets.from_log_density(banana, 2),
        boosting(num_components=6, tolerance=0.0),
    )
    values = result.history["value"]
    assert np.all(np.diff(values) >= 0)
    assert values[0] < -0.2
    assert values[-1] > -0.12
    assert abs(values[-1] - result.diagnostics.elbo) < 0.03
