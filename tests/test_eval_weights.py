"""log p(x) under samples of the weights, and the gap to training examples, of runs in process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small
from scipy.special import logsumexp

import vi_jax as vi
from experiments.evals import sides, weights
from experiments.run import session

pytestmark = pytest.mark.integration
NUM = 6


@pytest.fixture(scope="module")
def built():
    config = small()
    with config.unlocked():
        config.objective = dict(name="full_vb")
        config.data.test = "all[:40]"
        config.data.train = "all[40:200]"
    return session.build_all(config)


@pytest.fixture(scope="module")
def params(built):
    return session.start_state(built.config, built.model).params


def test_weights_without_spread_are_the_point(built, params, no_key_check):
    sure = {**params, "log_scale": jax.tree.map(lambda leaf: leaf - 30.0, params["log_scale"])}
    key = jax.random.key(0)
    (_, key_z), *_ = jax.random.split(key, (1, 2))
    x = built.x[:NUM]
    at_sure = weights.log_p(key, built, sure, x, num_samples=8, num_weights=1)
    at_mean = weights.log_p(key_z, built, sure, x, num_samples=8, num_weights=0)
    np.testing.assert_allclose(at_sure, at_mean, rtol=1e-5)


def test_p_is_averaged_over_samples_of_the_weights(built, params, no_key_check):
    """The mean of densities at each sample, by the samples of the same keys."""
    key = jax.random.key(1)
    x = built.x[:NUM]
    found = weights.log_p(key, built, params, x, num_samples=12, num_weights=3)
    each = []
    for key_weights, key_z in jax.random.split(key, (3, 2)):
        drawn = vi.losses.draw_weights(key_weights, params)
        each.append(weights.log_p(key_z, built, drawn, x, num_samples=4, num_weights=0))
    np.testing.assert_allclose(found, logsumexp(each, axis=0) - np.log(3), rtol=1e-5)


def test_both_are_in_the_summary_and_in_the_table(built, params, no_key_check):
    asked = sides.Asked(bracket=0, refit=0, num_samples=6, weights=2, train=30)
    summary = sides.measure(jax.random.key(2), built, params, asked)
    assert summary["predictive"]["num_weights"] == 2
    gap = summary["train_gap"]
    assert gap["num_examples"] == 30
    assert abs(gap["mean"]) < 8 * gap["stderr"]  # nothing has been learned
    titles = [row.title for row in sides.rows(summary)]
    assert titles == ["log p(x), 2 samples of weights", "log p(x), 30 of training"]


def test_a_point_estimate_has_a_gap_and_no_samples_of_weights(built, params, capsys, no_key_check):
    asked = sides.Asked(bracket=0, refit=0, num_samples=6, weights=2, train=30)
    point = built._replace(model=vi.models.vae(built.x_shape, num_latents=2, hidden=(4,)))
    at = point.model.init(jax.random.key(3))
    summary = sides.measure(jax.random.key(2), point, at, asked)
    assert set(summary) == {"train_gap"}
    assert "no --weights: the weights of this run are a point estimate" in capsys.readouterr().err
    assert np.isfinite(jnp.asarray(summary["train_gap"]["mean"]))
