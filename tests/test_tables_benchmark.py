"""What `benchmarks.tables` measures with, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

tables_data = pytest.importorskip("benchmarks.tables_data")
tables_fit = pytest.importorskip("benchmarks.tables_fit")
tables_model = pytest.importorskip("benchmarks.tables_model")

LINEAR = tables_model.Shape(2, "gaussian", is_linear=True, has_encoder=False)
NUM_COLUMNS = 4


def some_mixture(num_parts=2):
    """A model, the parameters of a mixture of it, and its parts' means and covariances."""
    rng = np.random.default_rng(0)
    model = tables_model.factor_vae(NUM_COLUMNS, LINEAR)
    keys = jax.random.split(jax.random.key(0), num_parts)
    parts = jax.vmap(model.init)(keys)
    parts["weights"] = jnp.asarray(rng.normal(size=(num_parts, NUM_COLUMNS, 2)), jnp.float32)
    parts["bias"] = jnp.asarray(rng.normal(size=(num_parts, NUM_COLUMNS)), jnp.float32)
    params = {"parts": parts, "logits": jnp.arange(num_parts, dtype=jnp.float32)}
    weights = np.asarray(parts["weights"], np.float64)
    scale = LINEAR.min_scale + np.exp(np.asarray(parts["log_scale"], np.float64))
    covariances = [w @ w.T + np.diag(s**2) for w, s in zip(weights, scale, strict=True)]
    return model, params, np.asarray(parts["bias"], np.float64), covariances


def some_rows():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, NUM_COLUMNS))
    observed = rng.random(values.shape) < 0.6
    observed[:, 0] = True
    return values, observed


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
