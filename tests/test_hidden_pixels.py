"""experiments.impute of a run of images: what it writes, and its figure."""

import json

import jax
import numpy as np
import pytest
from command_helpers import small

from experiments import figures
from experiments.cli import UserError
from experiments.evals import hidden_pixels
from experiments.run import folder, session, single


@pytest.mark.integration
def test_hidden_pixels_of_a_run_are_filled_in(tmp_path, capsys, no_key_check):
    config = small(train__num_steps=20, train__eval_every=20)
    folder.open_folder(tmp_path / "run", config, overwrite=False)
    single.train(config, tmp_path / "run", resumed=False)
    dataset = session.load_data(config)
    options = hidden_pixels.Options(num_steps=30, burn_in=5, num_draws=4)

    def fill(method, **changes):
        given = {"missing": 40, "split": "test", "num": 24, "checkpoint": "latest", "seed": 0}
        return hidden_pixels.fill_images(
            config, dataset, tmp_path / "run", tmp_path / "out", method=method, options=options,
            **{**given, **changes},
        )  # fmt: skip

    capsys.readouterr()
    summary = fill("all")
    assert summary == json.loads((tmp_path / "out" / "imputed.json").read_text())
    assert (tmp_path / "out" / "imputed.png").stat().st_size > 1_000
    found = np.load(tmp_path / "out" / "imputed.npz")
    x = found["x"]
    assert found["draws"].shape == (24, 4, 8, 8)
    seen = found["observed"]
    assert 0.5 < seen.mean() < 0.7
    np.testing.assert_array_equal(np.where(seen, x, 0), np.where(seen, found["mean"], 0))
    for draw in np.moveaxis(found["draws"], 1, 0):
        np.testing.assert_array_equal(np.where(seen, x, 0), np.where(seen, draw, 0))
    error = np.where(seen, 0.0, found["mean"] - x)
    rmse = np.sqrt((error**2).sum((1, 2)) / (~seen).sum((1, 2))).mean()
    np.testing.assert_allclose(summary["metropolis"]["rmse"]["mean"], rmse, rtol=1e-4)
    gain = summary["pseudo_gibbs"]["log_prob_above"]["marginal"]["mean"]
    means = {name: summary[name]["log_prob"]["mean"] for name in ("pseudo_gibbs", "marginal")}
    np.testing.assert_allclose(gain, means["pseudo_gibbs"] - means["marginal"], atol=1e-5)
    said = capsys.readouterr().out
    for name in hidden_pixels.METHODS:
        assert name in said
    with pytest.raises(UserError, match="none of train, validation, test"):
        fill("all", split="tset")
    with pytest.raises(UserError, match="at most 99 per cent"):
        fill("all", missing=100)


@pytest.mark.integration
def test_ranks_of_the_truth_among_draws_of_its_law_are_uniform():
    """Ties included: of a coin's sums."""
    draws = np.random.default_rng(0).binomial(3, 0.4, (4_000, 20))
    keys = jax.random.split(jax.random.key(0), 4_000)
    ranks = jax.vmap(hidden_pixels._rank)(keys, draws[:, 0], draws[:, 1:])
    ranks = np.sort(np.asarray(ranks))
    assert np.abs(ranks - (np.arange(4_000) + 0.5) / 4_000).max() < 0.03


def test_filled_images_are_of_one_shape(tmp_path):
    rows = {"original": np.ones((2, 4, 4)), "seen": np.zeros((2, 4, 4))}
    path = figures.filled_images(tmp_path / "a.png", rows, np.ones((2, 4, 4), bool), title="a")
    assert path.stat().st_size > 1_000
    with pytest.raises(ValueError, match="of one shape"):
        figures.filled_images(tmp_path / "a.png", rows, np.ones((3, 4, 4), bool), title="a")
