"""Spike counts: the simulated Lorenz set, files, bits per spike as the benchmark defines them, and
pages.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_mean, keys
from ml_collections import ConfigDict
from PIL import Image
from scipy.special import gammaln

import vi_jax as vi
from configs import base
from experiments import figures
from experiments.data import DataError, load, lorenz, rotations, spikes
from experiments.evals import spikes as evaluation
from vi_jax.diagnostics.spikes import (
    bits_per_spike,
    latent_r2,
    matched_states,
    rate_r2,
    states_share,
)
from vi_jax.models.table_vae import Column

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "neural"


def config_of(name, **fields):
    config = base.digits()
    config.update(name=name, kind="sequences", kinds="poisson", **fields)
    return ConfigDict(config, type_safe=False)


@pytest.fixture(scope="module")
def small(monkeypatch_module):
    monkeypatch_module.setattr(lorenz, "NUM_CONDITIONS", 5)
    monkeypatch_module.setattr(lorenz, "NUM_OLD", 4)
    return lorenz.simulate()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_lorenz_spikes_follow_their_rates(small):
    """Log rates are linear in the latents; counts have the rates' means, but for the spikes that
    were the second of a millisecond; the flow is that of the equations.
    """
    assert small.counts.shape == (100, 100, 30)
    expected = 10.0 * -np.expm1(-small.rates / 10.0)
    off = (small.counts - expected).sum((0, 1))
    assert (np.abs(off) < 5 * np.sqrt(expected.sum((0, 1)))).all()
    flat = np.concatenate([small.latents, np.ones((100, 100, 1))], -1).reshape(-1, 4)
    logs = np.log(small.rates).reshape(-1, 30)
    weights = np.linalg.lstsq(flat, logs, rcond=None)[0]
    np.testing.assert_allclose(flat @ weights, logs, atol=1e-9)
    np.testing.assert_allclose(weights[3], np.log(0.05), atol=1e-9)
    assert ((np.abs(weights[:3]) > 1.0) & (np.abs(weights[:3]) < 2.0)).all()
    assert np.abs(small.latents).max() <= 1.0
    np.testing.assert_allclose(small.latents.mean((0, 1)), 0.0, atol=1e-12)
    np.testing.assert_allclose(
        lorenz._flow(np.array([[1.0, 2.0, 3.0]])), [[10.0, 23.0, 2.0 - 8.0]], rtol=1e-12
    )


def test_its_splits_share_conditions_or_do_not(small):
    rows = {split: lorenz.split_rows(small.condition, split) for split in lorenz.SPLITS}
    assert len(rows["train"]) == 80
    assert len(rows["test"]) == 20
    assert set(small.condition[rows["train"]]) == set(small.condition[rows["test"]])
    old, new = (set(small.condition[rows[f"{age}_conditions"]]) for age in ("old", "new"))
    assert (old, new) == ({0, 1, 2, 3}, {4})
    mixed = np.random.default_rng(0).permutation(small.condition)
    counted = np.bincount(mixed[lorenz.split_rows(mixed, "train")])
    assert counted.tolist() == [16] * 5


def test_the_truth_stays_beside_its_trials(small):
    dataset = load(
        config_of("lorenz", train="old_conditions", validation="", test="new_conditions")
    )
    assert dataset.num_steps == 100
    rows = lorenz.split_rows(small.condition, "new_conditions")
    np.testing.assert_array_equal(dataset.test.x["values"], small.counts[rows])
    np.testing.assert_array_equal(dataset.test.truth["rates"], small.rates[rows])
    np.testing.assert_array_equal(dataset.test.truth["latents"], small.latents[rows])
    assert dataset.test.x["observed"].all()


def test_files_of_counts(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (40, 6, 9)).astype(np.int8)
    counts[3, 4:] = -1
    rates = rng.random((4, 6, 9)).astype(np.float32)
    path = tmp_path / "mine.npz"
    condition = np.repeat(np.arange(4), 10)
    np.savez(path, spikes=counts, condition=condition, rates=rates, dt=0.02)
    dataset = load(config_of(f"spikes:{path}", train="train", validation="", test="test"))
    assert (dataset.train.num, dataset.test.num) == (32, 8)
    np.testing.assert_allclose(
        dataset.test.truth["rates"], 0.02 * np.repeat(rates, 2, axis=0), rtol=1e-6
    )
    assert not dataset.train.x["observed"][3, 4:].any()
    for name, array, message in [
        ("counts", counts * 0.5, "counts are wanted, whole numbers"),
        ("counts", counts[0], r"wanted as \[trials, T, N\]"),
        ("firing", counts, "none of spikes, counts, spike_counts"),
    ]:
        np.savez(path, **{name: array})
        with pytest.raises(DataError, match=message):
            load(config_of(f"spikes:{path}"))
    np.savez(path, spikes=counts, rates=rates)
    with pytest.raises(DataError, match="one for each trial is wanted"):
        spikes.open_source(str(path), "")


def times_of(seed=0):
    """Spikes of three neurons, the last of which is silent, and two trials of 0.1 and 0.07 s."""
    rng = np.random.default_rng(seed)
    return {
        "spike_times": rng.uniform(0.0, 1.0, 400),
        "unit": rng.integers(0, 2, 400),
        "start": np.array([0.2, 0.6]),
        "stop": np.array([0.3, 0.675]),
    }


def counts_of(arrays, width, num_units):
    """By a histogram of each trial and unit."""
    edges = [
        start + width * np.arange(int((stop - start) / width + 1e-9) + 1)
        for start, stop in zip(arrays["start"], arrays["stop"], strict=True)
    ]
    counts = np.full((2, len(edges[0]) - 1, num_units), np.nan)
    for trial, own in enumerate(edges):
        for unit in range(num_units):
            times = arrays["spike_times"][arrays["unit"] == unit]
            # NumPy's last bin is closed
            counts[trial, : len(own) - 1, unit] = np.histogram(times, [*own, 9.0])[0][:-1]
    return counts


def test_spike_times_are_counted_in_whole_bins_of_trials(tmp_path):
    arrays = times_of()
    path = tmp_path / "times.npz"
    np.savez(path, **arrays)
    raw = spikes.open_source(str(path), "", bin_ms=10).read("all")
    assert raw.x.shape == (2, 10, 2)
    np.testing.assert_array_equal(raw.x, counts_of(arrays, 0.01, 2))
    assert np.isnan(raw.x[1, 7:]).all()
    np.savez(path, **arrays, dt=0.02, condition=np.array([0, 1]))
    by_file = spikes.open_source(str(path), "").read("train")
    np.testing.assert_array_equal(by_file.x, counts_of(arrays, 0.02, 2))


def test_an_nwb_file_is_its_units_and_trials(tmp_path):
    h5py = pytest.importorskip("h5py")
    arrays = times_of()
    path = tmp_path / "session.nwb"
    order = np.argsort(arrays["unit"], kind="stable")
    sizes = np.bincount(arrays["unit"], minlength=3)  # the last has no spikes
    with h5py.File(path, "w") as root:
        root["units/spike_times"] = arrays["spike_times"][order]
        root["units/spike_times_index"] = np.cumsum(sizes)
        root["intervals/trials/start_time"] = arrays["start"]
        root["intervals/trials/stop_time"] = arrays["stop"]
    raw = spikes.open_source(str(path), "", bin_ms=10).read("all")
    np.testing.assert_array_equal(raw.x, counts_of(arrays, 0.01, 3))
    with h5py.File(path, "a") as root:
        del root["intervals/trials/stop_time"]
    with pytest.raises(DataError, match="has no intervals/trials/stop_time"):
        spikes.open_source(str(path), "", bin_ms=10)


@pytest.mark.parametrize(
    ("changed", "bin_ms", "message"),
    [
        ({}, 0, "no width of a bin"),
        ({"unit": None}, 10, "spike_times and no unit"),
        ({"unit": np.zeros(3, int)}, 10, "of shapes"),
        ({"unit": np.zeros(400)}, 10, "no whole number"),
        ({"start": np.array([0.2, np.nan])}, 10, "start that are not finite"),
        ({"stop": np.array([0.3, 0.605])}, 10, "trial 1 of 0.005 s"),
        ({"stop": np.array([0.3, 30_000.0])}, 10, "are its times in seconds"),
        ({"start": np.array([5.0, 6.0]), "stop": np.array([5.1, 6.1])}, 10, "none within a trial"),
    ],
)
def test_spike_times_that_cannot_be_are_refused(tmp_path, changed, bin_ms, message):
    path = tmp_path / "times.npz"
    arrays = {**times_of(), **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=message):
        spikes.open_source(str(path), "", bin_ms=bin_ms)


@pytest.mark.integration
def test_files_of_others():
    """The stored Lorenz set, and the tutorial's in the format of lfads-torch."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    path = SHARED / "lorenz_spikes.npz"
    dataset = load(config_of(f"spikes:{path}", train="train", validation="", test="test"))
    assert (dataset.train.num, dataset.test.num) == (1_040, 260)
    counts = dataset.test.x["values"][..., 3::4]
    oracle = bits_per_spike(dataset.test.truth["rates"][..., 3::4], counts)
    assert abs(oracle.value - 0.5438) < 5e-5
    pytest.importorskip("h5py")
    path = SHARED / "lfads_tutorial_lorenz.h5"
    tutorial = load(config_of(f"spikes:{path}", train="train", validation="", test="test"))
    assert (tutorial.train.num, tutorial.test.num) == (640, 160)
    total = tutorial.test.truth["rates"].sum() / tutorial.test.x["values"].sum()
    assert abs(total - 1.0) < 0.02


def nlb_bits_per_spike(rates, spikes):
    """As nlb_tools/evaluation.py has it (1.0.3), nan where not observed."""

    def neg_log_likelihood(rates, spikes):
        seen = ~np.isnan(spikes)
        rates = rates[seen].copy()
        spikes = spikes[seen]
        rates[rates == 0] = 1e-9
        return np.sum(rates - spikes * np.log(rates) + gammaln(spikes + 1.0))

    null = np.tile(
        np.nanmean(spikes, axis=tuple(range(spikes.ndim - 1)), keepdims=True),
        (*spikes.shape[:-1], 1),
    )
    gain = neg_log_likelihood(null, spikes) - neg_log_likelihood(rates, spikes)
    return gain / np.nansum(spikes) / np.log(2)


def test_bits_per_spike_are_those_of_the_benchmark():
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 0.3, (20, 15, 6))
    counts = rng.poisson(rates).astype(float)
    guess = rates * np.exp(0.3 * rng.standard_normal(rates.shape))
    guess[0, 0, 0] = 0.0
    observed = rng.random(rates.shape) < 0.8
    ours = bits_per_spike(guess, counts)
    np.testing.assert_allclose(ours.value, nlb_bits_per_spike(guess, counts), rtol=1e-9)
    partly = bits_per_spike(guess, np.where(observed, counts, np.nan), observed)
    theirs = nlb_bits_per_spike(guess, np.where(observed, counts, np.nan))
    np.testing.assert_allclose(partly.value, theirs, rtol=1e-9)
    # the standard error is that of trials drawn again
    again = [
        bits_per_spike(guess[rows], counts[rows]).value for rows in rng.integers(0, 20, (400, 20))
    ]
    assert 0.7 < ours.stderr / np.std(again) < 1.4
    assert np.isnan(bits_per_spike(rates, 0 * counts).value)
    with pytest.raises(ValueError, match="alike"):
        bits_per_spike(rates, counts[:3])


def test_what_a_copy_and_the_truth_score(small):
    """The summary of an evaluation whose predictions are the true rates, and one of the means."""
    hidden = np.arange(30) % 4 == 3
    truth = {"rates": small.rates, "latents": small.latents}
    mixed = small.latents @ np.random.default_rng(0).random((3, 5))
    found = {
        "counts": small.counts,
        "observed": np.ones(small.counts.shape, bool),
        "rates": small.rates,
        "rates_hidden": small.rates[..., hidden],
        "trajectory": np.stack([mixed, mixed], axis=1),
        "states": np.zeros((100, 0), int),
        "rates_later": small.rates,
        "is_later": np.broadcast_to(np.arange(100)[:, None] >= 80, small.counts.shape),
    }
    summary = evaluation.summary_of(found, hidden, truth)
    assert summary["co_bps_share"] == 1.0
    assert summary["rate_r2"] == 1.0
    np.testing.assert_allclose(summary["latent_r2"], 1.0, atol=1e-9)
    ahead = bits_per_spike(small.rates[:, 80:], small.counts[:, 80:])
    np.testing.assert_allclose(summary["fp_bps"]["mean"], ahead.value, rtol=1e-12)
    assert len(evaluation.rows(summary)) == 4
    flat = {**found, "rates_hidden": np.ones_like(small.rates[..., hidden])}
    worse = evaluation.summary_of(flat, hidden, None)
    assert worse["co_bps"]["mean"] < 0.0
    assert set(worse) == {"co_bps", "fp_bps"}
    assert rate_r2(np.broadcast_to(small.rates.mean((0, 1)), small.rates.shape), small.rates) == 0.0
    noise = np.random.default_rng(1).standard_normal(small.latents.shape)
    assert (np.abs(latent_r2(noise, small.latents)) < 0.01).all()


def test_the_last_fifth_of_a_trial_is_that_of_its_own_length():
    observed = np.ones((12, 3), bool)
    observed[10:] = False
    observed[4, :2] = False
    found = np.asarray(evaluation.later(jnp.asarray(observed)))
    assert np.flatnonzero(found[:10]).tolist() == [8, 9]
    assert not np.asarray(evaluation.later(jnp.asarray(0 * observed > 0)))[:0].any()


def test_states_are_matched_whatever_their_numbers():
    truth = np.array([[0, 0, 1, 1, 2, 2, 2]])
    assert states_share(np.array([2, 0, 1])[truth], truth) == 1.0
    assert states_share(np.where(truth == 2, 1, truth), truth) == 5 / 7
    assert states_share(np.zeros_like(truth), truth) == 3 / 7
    assert states_share(5 - truth, truth) == 1.0
    np.testing.assert_array_equal(matched_states(5 - truth, truth), truth)


def test_points_turn_by_their_states():
    made = rotations.simulate()
    assert made["counts"].shape == (36, 200, 50)
    expected = made["rates"].sum((0, 1))
    assert (np.abs(made["counts"].sum((0, 1)) - expected) < 5 * expected**0.5).all()
    complex_path = made["latents"][..., 0] + 1j * made["latents"][..., 1]
    state = made["states"][:, :-1]
    turn = complex_path[:, 1:] / complex_path[:, :-1]
    for number, angle in enumerate(rotations.TURNS):
        here = (state == number) & (np.abs(complex_path[:, :-1]) > 0.5)
        assert here.sum() > 500
        assert abs(np.angle(turn[here]).mean() - angle) < 5 * 0.1 / here.sum() ** 0.5
    assert abs(np.mean(state[:, 1:] == state[:, :-1]) - rotations.STAY) < 0.005


@pytest.mark.integration
def test_pages_of_spikes_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    rates = rng.random((4, 12, 9))
    counts = np.where(rng.random(rates.shape) < 0.9, rng.poisson(rates), np.nan)
    for truth in (None, rates):
        trials = [
            figures.Trial(f"trial {n}", counts[n], rates[n], None if truth is None else truth[n])
            for n in range(4)
        ]
        path = figures.raster_and_rates(tmp_path / "rates.png", trials, title="of a test")
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
    states = np.arange(40).reshape(4, 10) % 3
    for truth in (None, states):
        path = figures.states_over_time(
            tmp_path / "states.png", list("abcd"), states, truth, title="of a test"
        )
        assert Image.open(path).size[0] > 500
    path = figures.latent_paths(
        tmp_path / "latents.png", "abcd", rates[..., :2], rates[..., :2], title="of a test"
    )
    assert path.exists()
    with pytest.raises(ValueError, match="needs trials"):
        figures.raster_and_rates(tmp_path / "rates.png", [], title="of a test")


@pytest.mark.integration
def test_coordinated_dropout_estimates_the_terms():
    """Where the guide does not depend on what it is shown, the mean over masks is the term itself;
    and what it is shown is not scored.
    """
    sizes = dict(num_latents=2, width=3, generator_width=3, num_factors=2)
    model = vi.models.lfads([Column("poisson")] * 4, hide=0.3, **sizes)
    params = jax.jit(model.init)(jax.random.key(0))
    params["encoder"]["Dense_0"] = jax.tree.map(jnp.zeros_like, params["encoder"]["Dense_0"])
    rng = np.random.default_rng(0)
    x = {
        "values": jnp.asarray(rng.poisson(1.0, (6, 4)), jnp.float32),
        "observed": jnp.asarray(rng.random((6, 4)) < 0.8),
    }
    of = {name: getattr(model, name) for name in ("terms", "train_terms")}
    drawn = {
        name: jax.jit(jax.vmap(lambda key, f=f: f(key, params, x).log_lik))(keys(1, 4_000))
        for name, f in of.items()
    }
    assert_mean(drawn["train_terms"], np.asarray(drawn["terms"], np.float64).mean())
    assert np.std(drawn["train_terms"]) > 2 * np.std(drawn["terms"])
    with pytest.raises(ValueError, match="hide in"):
        vi.models.lfads([Column("poisson")], hide=1.0)
