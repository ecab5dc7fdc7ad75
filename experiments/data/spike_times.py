"""Spike times as counts [trials, T, N]: of an .npz of times, units and trials, and of NWB files
(Neurodata Without Borders 2: HDF5 of a fixed layout, so that h5py reads it).

An .npz holds `spike_times` in seconds and `unit`, the number of the neuron of each, both
[spikes], and of trials `start` and `stop` in seconds, [trials]. An NWB file holds
units/spike_times with its index and intervals/trials. A trial's last bin is its last whole one;
shorter trials are padded with nan.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.base import DataError, require, say
from vi_jax import files

NWB = (".nwb",)
TIMES = "spike_times"
OF_NPZ = (TIMES, "unit", "start", "stop")
OF_NWB = {
    "times": "units/spike_times",
    "ends": "units/spike_times_index",
    "start": "intervals/trials/start_time",
    "stop": "intervals/trials/stop_time",
}
MOST_BINS = 1_000_000  # of a trial: times are no seconds
MOST_CELLS = 2**28  # two gigabytes
MOST_OUTSIDE = 0.5  # share of spikes outside all trials, from which on it is said
ROUNDING = 1e-6  # of a bin, by which a trial may be short of it


def read_nwb(path: Path) -> dict[str, np.ndarray]:
    """`spike_times`, `unit`, `start`, `stop` of an NWB file, and `condition` where a trial has one.

    Raises:
      DataError: it has no units with spike times, or no trials.
    """
    h5py = require("h5py", "h5py", f"{path}, an NWB file,")
    with files.open_regular(path, follow=True) as opened, h5py.File(opened, "r") as root:
        missing = [name for name in OF_NWB.values() if name not in root]
        if missing:
            raise DataError(
                f"{path} has no {', '.join(missing)}; spikes of an NWB file are read from its "
                "units table (spike_times) and its trials table (start_time, stop_time). Save "
                "what it has instead as .npz: spike_times, unit, start, stop."
            )
        found = {key: np.asarray(root[name][()]) for key, name in OF_NWB.items()}
        condition = root.get("intervals/trials/condition")
        labels = None if condition is None else np.asarray(condition[()])
    # the spikes of a unit end where the index says, those of the next begin there
    ends = found["ends"].astype(np.int64)
    sizes = ends - np.concatenate([[0], ends[:-1]])
    if sizes.size == 0 or sizes.min() < 0 or sizes.sum() != len(found["times"]):
        raise DataError(
            f"{path} has units/spike_times_index that does not divide its "
            f"{len(found['times']):,} spike times; write it again with pynwb."
        )
    arrays = {
        TIMES: found["times"],
        "unit": np.repeat(np.arange(len(sizes)), sizes),
        "start": found["start"],
        "stop": found["stop"],
        "num_units": np.array(len(sizes)),
    }
    return arrays if labels is None else {**arrays, "condition": _codes(labels)}


def _codes(labels: np.ndarray) -> np.ndarray:
    """The number of each label, [trials]."""
    return np.unique(labels, return_inverse=True)[1]


def counted(arrays: Mapping[str, np.ndarray], width: float, where: str) -> dict[str, Any]:
    """The arrays with `counts` [trials, T, N] and `dt` in place of times.

    Args:
      arrays: those of `read_nwb`, or of an .npz.
      width: of a bin, seconds.
      where: the file, for messages.

    Raises:
      DataError: one is missing or of another shape, times are not finite, no trial has a bin, or
        a trial would have more than MOST_BINS.
    """
    _require_arrays(arrays, where)
    times = np.asarray(arrays[TIMES], np.float64)
    start = np.asarray(arrays["start"], np.float64)
    stop = np.asarray(arrays["stop"], np.float64)
    unit = np.asarray(arrays["unit"], np.int64)
    num_units = int(arrays.get("num_units", unit.max(initial=-1) + 1))
    num_bins = _bins_of(start, stop, width, where)
    most = int(num_bins.max(initial=0))
    if len(start) * most * num_units > MOST_CELLS:
        raise DataError(
            f"{where} makes {len(start):,} trials of up to {most:,} bins and {num_units:,} units, "
            f"more than {MOST_CELLS:,} counts; take wider bins by config.data.bin_ms."
        )
    order = np.argsort(times, kind="stable")
    times = times[order]
    unit = unit[order]
    counts = np.full((len(start), most, num_units), np.nan)
    num_inside = 0
    for trial, (begin, bins) in enumerate(zip(start, num_bins, strict=True)):
        first = np.searchsorted(times, begin)
        last = np.searchsorted(times, begin + bins * width)
        bin_of = np.floor((times[first:last] - begin) / width).astype(np.int64)
        own = np.zeros((bins, num_units))
        np.add.at(own, (np.minimum(bin_of, bins - 1), unit[first:last]), 1.0)
        counts[trial, :bins] = own
        num_inside += last - first
    _say_outside(num_inside, len(times), where)
    rest = {key: value for key, value in arrays.items() if key not in (*OF_NPZ, "num_units")}
    return {**rest, "counts": counts, "dt": np.array(width)}


def _require_arrays(arrays: Mapping[str, np.ndarray], where: str) -> None:
    missing = [name for name in OF_NPZ if name not in arrays]
    if missing:
        raise DataError(
            f"{where} has spike_times and no {', '.join(missing)}; times of spikes come with the "
            "unit of each, and with the start and stop of trials, in seconds."
        )
    shapes = [np.shape(arrays[name]) for name in OF_NPZ]
    is_paired = shapes[0] == shapes[1] and shapes[2] == shapes[3]
    if not is_paired or len(shapes[0]) != 1 or len(shapes[2]) != 1:
        raise DataError(
            f"{where} has {', '.join(OF_NPZ)} of shapes {', '.join(map(str, shapes))}; [spikes] "
            "twice and [trials] twice are wanted."
        )
    _require_numbers(arrays, where)


def _require_numbers(arrays: Mapping[str, np.ndarray], where: str) -> None:
    unit = np.asarray(arrays["unit"])
    if unit.dtype.kind not in "iu" or (unit.size and unit.min() < 0):
        raise DataError(
            f"{where} has a unit that is no whole number from 0; number the neurons 0, 1, ..."
        )
    for name in (TIMES, "start", "stop"):
        if not np.isfinite(np.asarray(arrays[name], np.float64)).all():
            raise DataError(f"{where} has {name} that are not finite; leave these out.")


def _bins_of(start: np.ndarray, stop: np.ndarray, width: float, where: str) -> np.ndarray:
    """Whole bins of each trial, [trials]."""
    bins = np.floor((stop - start) / width + ROUNDING)
    if not len(start) or bins.min() < 1:
        short = int(np.argmin(bins)) if len(start) else 0
        told = f"trial {short} of {stop[short] - start[short]:g} s" if len(start) else "no trials"
        raise DataError(
            f"{where} has {told}; each is wanted to last a bin of {width:g} s or more, by start "
            "and stop in seconds."
        )
    if bins.max() > MOST_BINS:
        raise DataError(
            f"{where} has a trial of {bins.max():,.0f} bins of {width:g} s, more than "
            f"{MOST_BINS:,}: are its times in seconds, and not in samples or milliseconds?"
        )
    return bins.astype(np.int64)


def _say_outside(num_inside: int, num: int, where: str) -> None:
    """Says how many spikes no trial has."""
    if not num_inside:
        raise DataError(
            f"{where} has {num:,} spikes and none within a trial; are start, stop and spike_times "
            "on one clock, in seconds?"
        )
    outside = 1.0 - num_inside / num
    if outside > MOST_OUTSIDE:
        say(f"{where}: {100.0 * outside:.0f} % of its {num:,} spikes are outside all trials")
