"""Densities that rounding decides: named at the start, before a method is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import vi_jax as vi
from vi_jax.fitting import _starts
from vi_jax.targets._posterior import _singular


def process(x, jitter):
    """A Gaussian process seen through signs."""
    rho = numpyro.sample("rho", dist.HalfCauchy(1.0))
    gap = jnp.abs(x[:, None] - x[None]) / rho
    covariance = (1 + gap) * jnp.exp(-gap) + jitter * jnp.eye(len(x))
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(x)), covariance))
    numpyro.sample("y", dist.Bernoulli(logits=f), obs=(x > 1).astype(int))


X = np.sort(np.random.default_rng(0).uniform(0, 3, 40))
X[10] = X[11]


@pytest.mark.integration
def test_a_covariance_that_is_singular_is_named_before_anything_is_run():
    phases = []
    target = vi.targets.from_numpyro(process, jnp.asarray(X), 0.0)
    with pytest.raises(vi.targets.TargetError) as raised:
        vi.fit(jax.random.key(0), target, on_phase=phases.append)
    text = str(raised.value)
    assert "the latent site 'f' (MultivariateNormal) has log density nan" in text
    assert "whose covariance is singular (its eigenvalues go from " in text
    assert "its rows 10 and 11 are equal" in text
    assert "add a jitter to its diagonal" in text
    assert "running bam" not in phases


def picked(log_density, size=2):
    target = vi.targets.from_log_density(log_density, size)
    run = jax.jit(lambda key: _starts.pick(key, target, 1, None))
    return np.asarray(run(jax.random.key(0))[4][1])


def test_an_edge_is_not_torn():
    def edged(u):
        return jnp.where(u[0] > 0.31, -0.5 * jnp.sum(u**2), -jnp.inf)

    assert np.isfinite(picked(edged)).all(axis=1).sum() < _starts.MIN_TORN


def test_what_changes_with_the_last_digits_is_torn():
    def torn(u):
        return jnp.where(jnp.sin(1e5 * u[0]) > 0, -0.5 * jnp.sum(u**2), jnp.nan)

    assert np.isfinite(picked(torn)).all(axis=1).sum() >= _starts.MIN_TORN


def test_what_is_wrong_with_a_covariance_is_said():
    good = np.eye(3)
    assert _singular(np.zeros(0)) == ""
    assert _singular(good) == ""
    assert _singular(np.where(good > 0, np.nan, 0.0)) == ", whose covariance is not finite"
    equal = np.array([[1.0, 0.2, 1.0], [0.2, 1.0, 0.2], [1.0, 0.2, 1.0]])
    assert "; its rows 0 and 2 are equal)" in _singular(np.stack([good, equal]))
    dependent = np.array([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 5.0]])
    assert "is singular (its eigenvalues" in _singular(dependent)
    assert "rows" not in _singular(dependent)
