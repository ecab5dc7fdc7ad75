"""Behaviour decoded by ridge regression: against scikit-learn, lags within trials, no look at the
test trials; and the command, with the rates that the benchmark reads.
"""

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from experiments.data import DataError, spikes
from vi_jax.diagnostics import decoding
from vi_jax.diagnostics.decoding import Trials

pytest_plugins = ["command_helpers"]


def made(num=12, num_bins=20, size=4, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num, num_bins, size)) * np.geomspace(0.1, 10.0, size) + 3.0
    weights = (
        np.random.default_rng(99).standard_normal((size, 2))
        / np.geomspace(0.1, 10.0, size)[:, None]
    )
    target = features @ weights + 2.0 * rng.standard_normal((num, num_bins, 2))
    return Trials(features, target)


def test_it_is_ridge_regression():
    train = made()
    test = made(6, seed=1)
    found = decoding.decode(train, test, penalties=(0.3,))
    x = train.features.reshape(-1, 4)
    scaled = (x - x.mean(0)) / x.std(0)
    ridge = Ridge(alpha=0.3 * len(x)).fit(scaled, train.target.reshape(-1, 2))
    expected = ridge.predict((test.features.reshape(-1, 4) - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(found.predicted.reshape(-1, 2), expected, rtol=1e-9)
    score = r2_score(test.target.reshape(-1, 2), expected, multioutput="raw_values")
    np.testing.assert_allclose(found.r2, score, rtol=1e-9)
    np.testing.assert_allclose(found.mean_r2, score.mean(), rtol=1e-9)
    # the standard error is that of other test trials
    again = [decoding.decode(train, made(6, seed=s), penalties=(0.3,)).r2 for s in range(2, 40)]
    ratio = found.stderr / np.std(again, axis=0)
    assert ((ratio > 0.4) & (ratio < 2.5)).all()


def test_the_penalty_is_chosen_without_the_test_trials():
    train = made()
    test = made(6, seed=1)
    found = decoding.decode(train, test)
    garbled = decoding.decode(train, test._replace(target=100.0 * test.target[::-1]))
    assert garbled.penalty == found.penalty
    np.testing.assert_array_equal(garbled.predicted, found.predicted)
    noise = np.random.default_rng(3).standard_normal(train.target.shape)
    assert decoding.decode(train._replace(target=noise), test).penalty > found.penalty


def test_lags_end_with_their_trials_and_gaps_are_left_out():
    x = np.arange(10.0).reshape(2, 5, 1)
    shifted = decoding.lagged(x, (1, 0, -1))
    np.testing.assert_array_equal(
        shifted[0], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    )
    assert shifted[1, 0].tolist() == [5, 5, 6]
    train = made()
    late = Trials(train.features, np.roll(train.target, 1, axis=1))
    late.target[:, 0] = np.nan
    found = decoding.decode(late, late, lags=range(-1, 2))
    assert found.mean_r2 > decoding.decode(late, late).mean_r2 + 0.2
    assert np.isfinite(found.predicted).all()
    constant = Trials(np.concatenate([train.features, 0 * train.features], -1), train.target)
    np.testing.assert_allclose(
        decoding.decode(constant, constant).predicted, decoding.decode(train, train).predicted
    )
    for wrong in (Trials(x[:1], x[:1]), Trials(x, x[:, :3])):
        with pytest.raises(ValueError, match="decode expects"):
            decoding.decode(wrong, wrong)


def written(path, num_bins=15):
    rng = np.random.default_rng(0)
    velocity = np.cumsum(rng.standard_normal((16, 15, 2)), axis=1)
    rates = np.exp(0.3 * velocity @ rng.standard_normal((2, 9)) - 0.5)
    counts = rng.poisson(rates).astype(np.int8)
    np.savez(path, spikes=counts, velocity=velocity[:, :num_bins], sessions=np.arange(3))


def test_behaviour_lies_beside_the_counts(tmp_path):
    path = tmp_path / "reach.npz"
    written(path)
    raw = spikes.open_source(str(path), "").read("all")
    assert set(raw.truth) == {"velocity"}
    written(path, 14)
    with pytest.raises(DataError, match="velocity of 14 bins a trial"):
        spikes.open_source(str(path), "")


@pytest.mark.integration
def test_the_command(commands, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "reach.npz"
    written(path)
    fields = {
        "data.name": f"spikes:{path}",
        "data.train": "all[:12]",
        "data.test": "all[12:]",
        "model.num_latents": 2,
        "model.num_passes": 2,
        "train.batch_size": 12,
        "train.num_steps": 4,
        "train.log_every": 2,
        "train.eval_every": 4,
        "train.checkpoint_every": 4,
        "eval.num_samples": 1,
        "eval.num_importance_samples": 2,
        "optim.learning_rate.warmup_steps": 1,
    }
    run = tmp_path / "run"
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    commands.ok("train", "--config=configs/neural/plds.py", *flags, f"--workdir={run}")
    done = commands.ok("decode", f"--workdir={run}", "--target=velocity", "--lags=1", "--nlb=mine")
    assert "R² of velocity" in done.stdout
    found = json.loads((run / "decoded" / "decoded.json").read_text())
    arrays = np.load(run / "decoded" / "decoded.npz")
    flat = [arrays[name].reshape(-1, 2) for name in ("velocity", "predicted")]
    score = r2_score(*flat, multioutput="raw_values")
    np.testing.assert_allclose(found["rates"]["r2_of_each"], score, rtol=1e-6)
    assert found["counts"]["r2"] > 0.2
    assert arrays["predicted"].shape == arrays["velocity"].shape == (4, 15, 2)
    with h5py.File(run / "decoded" / "rates.h5") as file:
        shapes = {name: file["mine"][name].shape for name in file["mine"]}
    assert shapes == {
        "train_rates_heldin": (12, 15, 7),
        "train_rates_heldout": (12, 15, 2),
        "eval_rates_heldin": (4, 15, 7),
        "eval_rates_heldout": (4, 15, 2),
    }
    failed = commands("decode", f"--workdir={run}", "--target=position")
    assert failed.returncode == 2
    assert "beside the counts there are: velocity" in failed.stderr
