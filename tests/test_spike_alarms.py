"""Alarms of spike counts: windows that overlap, units that repeat, variance, axes, shared trials;
and models that copy what they are shown.
"""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from configs import base
from experiments.data import DataError, load, spike_counts, spikes
from experiments.evals import alarms
from experiments.evals import copying as evaluation
from experiments.evals.base import Measures
from vi_jax.diagnostics import copying

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "neural"


def slow_counts(num=20, num_bins=60, num_units=9, seed=0):
    """Poisson counts of rates that change slowly, other for each unit."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0.0, 6.0, (num, 1, num_units))
    speed = np.arange(num_bins)[:, None] / 12.0
    rates = np.geomspace(0.2, 2.0, num_units) * np.exp(0.8 * np.sin(speed + phase))
    return rng.poisson(rates).astype(float), rng


def windows(counts, width):
    """Sums over windows that move by one bin."""
    num = counts.shape[1] - width + 1
    return sum(counts[:, start : start + num] for start in range(width))


@pytest.mark.parametrize("width", [2, 5, 8])
def test_windows_that_overlap_are_found(width):
    counts, rng = slow_counts()
    assert spike_counts.overlap_width(counts) == 0
    assert spike_counts.overlap_width(counts[:, ::width]) == 0
    found = windows(counts, width)
    observed = rng.random(found.shape) < 0.9
    assert spike_counts.overlap_width(found) == width
    assert spike_counts.overlap_width(np.where(observed, found, 77.0), observed) == width
    ratio = spike_counts.difference_ratio(found)
    np.testing.assert_allclose(ratio, 1.0 / width, rtol=0.3)


def test_variance_units_and_axes():
    counts, rng = slow_counts()
    assert abs(spike_counts.dispersion(counts) - 1.0) < 0.1
    wide = rng.negative_binomial(1.0, 0.5, (200, 1, 9)).astype(float)
    assert abs(spike_counts.dispersion(wide) - 2.0) < 0.4
    assert np.isnan(spike_counts.dispersion(np.zeros((3, 4, 2))))
    twice = np.concatenate([counts, counts[..., 2:3], 0 * counts[..., :2]], axis=-1)
    assert spike_counts.repeated_units(twice) == [(2, 9)]
    assert not spike_counts.axes_look_swapped(counts)
    assert spike_counts.axes_look_swapped(np.swapaxes(counts, 1, 2))


def config_of(path, **fields):
    config = base.digits()
    config.update(name=f"spikes:{path}", kind="sequences", kinds="poisson", **fields)
    return ConfigDict(config, type_safe=False)


def test_what_a_report_says(tmp_path):
    """Each fault by a file that has it; a file without has no line."""
    counts, rng = slow_counts()
    path = tmp_path / "counts.npz"
    split = {"train": "all[:12]", "validation": "", "test": "all[12:]"}

    def said(array, **more):
        np.savez(path, spikes=array, **more)
        report = load(config_of(path, **split)).report
        return [line for line in report if line.startswith("counts:")]

    assert said(counts) == []
    (line,) = said(windows(counts, 6))
    assert "windows of 6 rows" in line
    assert "every 6th row" in line
    (line,) = said(rng.negative_binomial(0.3, 0.3, counts.shape))
    assert "negative_binomial" in line
    (line,) = said(np.concatenate([counts, counts[..., :1]], axis=-1))
    assert "neuron_9 repeats neuron_0" in line
    (line,) = said(np.concatenate([counts[:15], counts[:5]]))
    assert "test trials are training trials" in line
    (line,) = said(np.swapaxes(counts, 1, 2)[:, :, :40])
    assert "axes are taken as" in line
    (line,) = said(50.0 + counts)
    assert "spikes in a bin" in line
    shared = load_with_conditions(path, counts)
    assert "4 of the test split's 4 conditions are trained on, which" in shared
    for width in (10.0, 0.0):
        np.savez(path, spikes=counts, dt=width / 1e4)
        with pytest.raises(DataError, match="dt is in seconds"):
            spikes.open_source(str(path), "")
    np.savez(path, spikes=counts[0])
    with pytest.raises(DataError, match="of one recording"):
        spikes.open_source(str(path), "")


def load_with_conditions(path, counts):
    np.savez(path, spikes=counts, condition=np.repeat(np.arange(4), 5))
    dataset = load(config_of(path, train="train", validation="", test="test"))
    return dataset.report[-1]


@pytest.mark.integration
def test_recordings_that_overlap():
    """Motor cortex in windows of 8 rows (KordingLab/DAD), and spikes that are none."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    recorded = np.load(SHARED / "m1_chewie.npz")
    for name in ("Ytr", "Yte"):
        assert spike_counts.overlap_width(recorded[name][None].astype(float)) == 8
    assert spike_counts.overlap_width(np.load(SHARED / "lorenz_spikes.npz")["spikes"]) == 0
    angles = np.load(SHARED / "cmu_counts.npz")["spike_counts"][:, None].astype(float)
    assert spike_counts.dispersion(angles) > 1.5


def gamma_poisson(seed=0):
    """Bins of ten that share a rate from a gamma distribution, a fifth hidden; the exact posterior
    given the others, and what it says of each bin.
    """
    rng = np.random.default_rng(seed)
    shape = (60, 6, 10)
    rates = rng.gamma(2.0, 0.5, (*shape[:2], 1))
    counts = rng.poisson(np.broadcast_to(rates, shape)).astype(float)
    hidden = rng.random(shape) < 0.2
    total = np.where(hidden, 0.0, counts).sum(-1, keepdims=True)
    num = (~hidden).sum(-1, keepdims=True)
    draws = rng.gamma(2.0 + total, 1.0 / (2.0 + num), (400, *total.shape))
    return counts, hidden, draws


def test_an_exact_posterior_is_no_copy_and_a_copy_is():
    counts, hidden, draws = gamma_poisson()
    log_probs = stats.poisson.logpmf(counts, draws)
    honest = copying(np.log(np.exp(log_probs).mean(0)), log_probs.var(0), counts, ~hidden, hidden)
    assert abs(honest.excess) < 4 * honest.stderr
    assert not honest.is_copy
    # what it scores on seen bins as they are is above
    raw = copying(log_probs.mean(0), 0 * counts, counts, ~hidden, hidden)
    assert raw.expected > honest.expected
    # a guide that puts a rate where it saw a spike
    rates = np.where(hidden, draws.mean(0), 0.7 * counts + 0.3 * draws.mean(0))
    copied = copying(stats.poisson.logpmf(counts, rates), 0 * counts, counts, ~hidden, hidden)
    assert copied.is_copy
    # the standard error is that of other data
    again = [
        copying(np.log(np.exp(lp).mean(0)), lp.var(0), c, ~h, h).excess
        for c, h, d in (gamma_poisson(seed) for seed in range(1, 9))
        for lp in [stats.poisson.logpmf(c, d[:100])]
    ]
    assert 0.4 < honest.stderr / np.std(again) < 2.5


def test_alarms_of_a_run_on_spikes():
    counts, hidden, draws = gamma_poisson()
    rates = draws.mean(0) + 0 * counts
    log_prob = stats.poisson.logpmf(counts, rates)
    found = {
        "log_prob": log_prob,
        "variance": 0.05 + 0 * counts,
        "rates": rates,
        "hidden": hidden,
        "counts": counts,
        "observed": np.ones(counts.shape, bool),
        "gain": np.full(60, 1e-3),
    }

    def told(**changes):
        summary = evaluation.summarise({"copying": {**found, **changes}})
        assert len(evaluation.rows(summary)) == 1
        return alarms.copying.alarms(Measures(summary, {}), None, 7)

    assert told() == []
    (line,) = told(gain=np.full(60, 0.5))
    assert "gained 0.5 nats" in line
    (line,) = told(rates=1.5 * rates)
    assert "1.5" in line
    (line,) = told(log_prob=np.where(hidden, log_prob, stats.poisson.logpmf(counts, counts + 0.1)))
    assert "ALARM copying at step 7" in line
    assert evaluation.alarms(Measures({}, {}), None, 7) == []
