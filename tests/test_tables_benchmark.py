"""What `benchmarks.tables` measures with, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

tables_data = pytest.importorskip("benchmarks.tables_data")
tables_fit = pytest.importorskip("benchmarks.tables_fit")
tables_intervals = pytest.importorskip("benchmarks.tables_intervals")
tables_model = pytest.importorskip("benchmarks.tables_model")

LINEAR = tables_model.Shape(2, "gaussian", "linearised")
NUM_COLUMNS = 4


def some_mixture(num_parts=2):
    """A model, the parameters of a mixture of it, and its parts' means and covariances."""
    rng = np.random.default_rng(0)
    model = tables_model.table_model(NUM_COLUMNS, LINEAR)
    parts = jax.vmap(model.init)(jax.random.split(jax.random.key(0), num_parts))
    weights = rng.normal(size=(num_parts, 2, NUM_COLUMNS))
    means = rng.normal(size=(num_parts, NUM_COLUMNS))
    layer = {"kernel": weights, "bias": means}
    parts["decoder"] = {"Dense_0": jax.tree.map(lambda leaf: jnp.asarray(leaf, "float32"), layer)}
    params = {"parts": parts, "logits": jnp.arange(num_parts, dtype=jnp.float32)}
    scales = np.asarray(
        jax.vmap(lambda part: tables_model.scales_of(part, LINEAR))(parts), np.float64
    )
    covariances = [w.T @ w + np.diag(s**2) for w, s in zip(weights, scales, strict=True)]
    return model, params, means, covariances


def some_rows():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, NUM_COLUMNS))
    observed = rng.random(values.shape) < 0.6
    observed[:, 0] = True
    return values, observed


@pytest.mark.integration
def test_one_draw_of_each_part_gives_log_p_of_what_is_observed():
    """The guide of a linear normal part is its posterior, whatever is missing."""
    model, params, means, covariances = some_mixture()
    values, observed = some_rows()
    found = tables_fit.bounds(
        model, params, tables_fit.as_rows(values, observed), jax.random.key(2), 1
    )
    log_shares = np.log(np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum())
    for row, seen, log_p in zip(values, observed, found, strict=True):
        each = [
            stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(row[seen])
            for mean, cov in zip(means, covariances, strict=True)
        ]
        assert log_p == pytest.approx(np.logaddexp.reduce(log_shares + each), abs=2e-4)


@pytest.mark.integration
def test_imputations_have_the_mean_of_the_posterior():
    model, params, means, covariances = some_mixture(num_parts=1)
    values, observed = some_rows()
    several = jax.tree.map(lambda leaf: leaf[None], params)
    rows = tables_fit.as_rows(values, observed)
    draws = tables_fit.impute(model, several, rows, 4000)
    centres = np.asarray(draws.centres)[0]  # [S, N, D]
    for number, seen in enumerate(observed):
        cov = covariances[0]
        gain = np.linalg.solve(cov[np.ix_(seen, seen)], (values[number] - means[0])[seen])
        mean = means[0] + cov[:, seen] @ gain
        stderr = centres[:, number].std(axis=0) / np.sqrt(len(centres))
        errors = np.abs(centres[:, number].mean(axis=0) - mean)[~seen]
        assert (errors < 5 * stderr[~seen] + 1e-3).all()


def test_the_jacobian_of_the_logarithm_is_its_derivative():
    rng = np.random.default_rng(3)
    rows = rng.gamma(2.0, size=(30, 3))
    split = tables_data.Split("", rows[:20], rows[20:], np.zeros(3))
    of_log = tables_data.logarithm(split)
    x = split.test
    np.testing.assert_allclose(of_log.inverse(of_log.forward(x)), x, rtol=1e-12)
    slope = (of_log.forward(x + 1e-6) - of_log.forward(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(np.log(slope).sum(axis=1), of_log.log_jacobian(x), rtol=1e-6)


@pytest.mark.integration
def test_beliefs_are_priors_of_weights_biases_and_scales():
    """The gradient of the penalty is that of the priors' log densities, argument by argument."""
    _, params, _, _ = some_mixture()
    parts = params["parts"]
    beliefs = tables_model.Beliefs(weights=3.0, biases=0.5, scales=4.0)
    slope = jax.grad(lambda parts: tables_model.penalty(parts, LINEAR, beliefs))(parts)
    scales = jax.vmap(lambda part: tables_model.scales_of(part, LINEAR))(parts)
    layer = parts["decoder"]["Dense_0"]
    found = slope["decoder"]["Dense_0"]
    expected = 3.0 * layer["kernel"] / scales[:, None] ** 2
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], 0.5 * layer["bias"] / scales**2, rtol=1e-5)
    # at equal scales an inverse gamma around their mean is at its mode
    assert abs(float(slope["likelihood"]["gaussian"]["log_sigma"].sum())) < 1e-5
    assert tables_model.penalty(parts, LINEAR, tables_model.Beliefs()) == 0.0


def test_one_observed_entry_of_each_row_is_hidden_and_folds_are_as_many_as_needed():
    observed = np.array([[True, False, True], [False, False, False], [False, True, False]])
    found = tables_intervals.one_of_each(np.random.default_rng(0), observed)
    assert found.sum(axis=1).tolist() == [1, 0, 1]
    assert not (found & ~observed).any()
    assert [tables_intervals.num_folds(size, 10) for size in (143, 45, 14, 5)] == [1, 4, 10, 10]


def test_entries_within_widened_intervals_are_counted_seed_by_seed():
    draws = np.random.default_rng(1).normal(size=(2, 4000, 5, 2))
    ends = tables_intervals.ends_of(draws)
    np.testing.assert_allclose(ends.upper, 1.645, atol=0.15)
    x = np.array([[-3.0, -2.5], [-2.0, -1.0], [0.0, 0.5], [1.0, 1.2], [2.0, 3.0]])
    everything = np.ones(x.shape, bool)
    found = tables_intervals.covered(x, ends, everything, [1.0, 2.0])
    assert found == [0.5, 1.0]
