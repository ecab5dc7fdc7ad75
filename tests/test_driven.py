"""Inferred inputs of LFADS: their prior against the dense normal, and steps after a trial's end."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal

import vi_jax as vi
from vi_jax.models._driven_guides import DrivenPrior
from vi_jax.models.table_vae import Column

SIZES = dict(num_latents=2, width=3, generator_width=3, num_factors=2, controller_width=3)
NUM_STEPS = 6


def prior():
    inputs = {"log_steps": jnp.log(jnp.array([3.0, 8.0])), "log_variance": jnp.array([0.3, -1.0])}
    return DrivenPrior(dist.Normal(jnp.zeros(1), 1.0).to_event(1), inputs, NUM_STEPS)


def test_the_prior_of_inputs_is_a_stationary_autoregression():
    value = {"z": jnp.zeros(1), "inputs": jnp.asarray(np.arange(12.0).reshape(6, 2) / 9.0)}
    found = jax.jit(DrivenPrior.log_prob)(prior(), value)
    apart = np.abs(np.subtract.outer(np.arange(NUM_STEPS), np.arange(NUM_STEPS)))
    expected = -0.5 * np.log(2.0 * np.pi)
    for number, (steps, variance) in enumerate([(3.0, np.exp(0.3)), (8.0, np.exp(-1.0))]):
        cov = variance * np.exp(-apart / steps)
        expected += multivariate_normal.logpdf(value["inputs"][:, number], cov=cov)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sizes_of_inputs_that_cannot_be_are_refused():
    for wrong in ({"num_inputs": -1}, {"num_inputs": 1, "controller_width": 0}):
        with pytest.raises(ValueError, match="num_inputs of at least 0"):
            vi.models.lfads([Column("poisson")], **{**SIZES, **wrong})


@pytest.mark.integration
def test_steps_after_a_trials_end_change_no_term():
    """Their inputs are the prior's, and so cost nothing; what is behind the mask changes no bit."""
    model = vi.models.lfads([Column("poisson")] * 3, num_inputs=2, **SIZES)
    params = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.2, params)
    counts = np.random.default_rng(0).poisson(1.0, (NUM_STEPS, 3)).astype(np.float32)
    x = {"values": jnp.asarray(counts), "observed": jnp.ones(counts.shape, bool)}
    longer = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 4), (0, 0))), x)
    terms = jax.jit(model.terms)
    short = terms(jax.random.key(1), params, x)
    padded = terms(jax.random.key(1), params, longer)
    assert short.kl["inputs"].sum() > 0.0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), short, padded)
    garbage = {**longer, "values": jnp.where(longer["observed"], longer["values"], jnp.nan)}
    found = terms(jax.random.key(1), params, garbage)
    jax.tree.map(np.testing.assert_array_equal, padded, found)
