"""`spikes:FILE`: counts of spikes [trials, T, N] in an .npz, or in an HDF5 file as lfads-torch
writes it, with the true rates and latents where they are known; or spike times, in an .npz or an
NWB file (`experiments.data.spike_times`).

An .npz holds `spikes` (or `counts`), and may hold `condition` [trials], the bin `dt` in seconds,
and `rates` (Hz) and `latents`, by trial or by condition, and behaviour [trials, T, M] under any
other name, nan where it is not known. With conditions it has the splits of
`lorenz`, else one, `all`. An HDF5 file holds `train_data` and `valid_data` (or `train_encod_data`
and `valid_encod_data`), and may hold `train_truth` in Hz and `train_lowd`; its splits are `train`
and `test`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.data import lorenz, spike_times
from experiments.data.base import DataError, Raw, Source, require, require_file
from vi_jax import files

COUNTS = ("spikes", "counts", "spike_counts")
HDF5 = (".h5", ".hdf5")
OF_SPLIT = {"train": "train", "test": "valid"}  # what lfads-torch calls them
BIN = 0.01  # seconds, where a file does not say
FASTEST = 300.0  # spikes a second, the mean of any neurons

Arrays = Mapping[str, np.ndarray]


def open_source(file: str, data_dir: str, *, bin_ms: float = 0.0) -> Source:
    """`file`, under `data_dir` when that is given and the path is relative; raises DataError.

    Args:
      file, data_dir: where it is.
      bin_ms: of spike times, the width of a bin; 0: the file's `dt`.
    """
    path = Path(data_dir) / file
    require_file(path, f"spikes:{file}")
    suffix = path.suffix.lower()
    if suffix in spike_times.NWB:
        return _of_npz(_in_bins(spike_times.read_nwb(path), bin_ms, str(path)), str(path))
    if suffix not in HDF5:
        arrays = _read_npz(path)
        if spike_times.TIMES in arrays:
            return _of_npz(_in_bins(arrays, bin_ms, str(path)), str(path))
        _require_no_width(bin_ms, str(path))
        return _of_npz(arrays, str(path))
    _require_no_width(bin_ms, str(path))
    return _of_hdf5(_read_hdf5(path), str(path))


def _in_bins(arrays: Arrays, bin_ms: float, where: str) -> dict[str, np.ndarray]:
    """Counts of spike times, in bins of the width that is asked for, else of the file's `dt`."""
    width = bin_ms / 1_000.0 or float(arrays.get("dt", 0.0))
    if not width > 0.0:
        raise DataError(
            f"{where} holds spike times, and no width of a bin is given; set config.data.bin_ms, "
            "such as 10."
        )
    return spike_times.counted(arrays, width, where)


def _require_no_width(bin_ms: float, where: str) -> None:
    """Raises DataError for a width where the bins are made already."""
    if bin_ms:
        raise DataError(
            f"config.data.bin_ms={bin_ms:g} is for spike times, and {where} holds counts; leave "
            "it at 0."
        )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with files.read_npz(path, follow=True) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npz ({error}); write it again.") from error


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    h5py = require("h5py", "h5py", f"{path}, an HDF5 file,")
    with files.open_regular(path, follow=True) as opened, h5py.File(opened, "r") as root:
        return {name: np.asarray(root[name][()]) for name in root}


def _of_npz(arrays: Arrays, where: str) -> Source:
    name = next((name for name in COUNTS if name in arrays), None)
    if name is None:
        raise DataError(
            f"{where} holds {', '.join(sorted(arrays))}, and none of {', '.join(COUNTS)}; save the "
            "counts [trials, T, N] under one of these names."
        )
    counts = _checked(arrays[name], f"{where}: {name}")
    condition = arrays.get("condition")
    width = float(arrays.get("dt", BIN))
    if "dt" in arrays:
        _require_width(width, counts, where)
    truth = {}
    if "rates" in arrays:
        truth["rates"] = _by_trial(arrays["rates"], condition, len(counts), where) * width
    if "latents" in arrays:
        truth["latents"] = _by_trial(arrays["latents"], condition, len(counts), where)
    truth |= _beside(arrays, counts, where)
    splits = ("all",) if condition is None else lorenz.SPLITS

    def read(split: str) -> Raw:
        rows = np.arange(len(counts))
        if condition is not None:
            rows = lorenz.split_rows(condition, split)
        labels = None if condition is None else condition[rows]
        own = {key: array[rows] for key, array in truth.items()}
        return Raw(counts[rows], labels, 0, where, _names(counts), truth=own or None)

    return Source(splits, read, where)


def _of_hdf5(arrays: Arrays, where: str) -> Source:
    def found(split: str, *kinds: str) -> np.ndarray | None:
        names = [f"{OF_SPLIT[split]}_{kind}" for kind in kinds]
        return next((arrays[name] for name in names if name in arrays), None)

    splits = tuple(split for split in OF_SPLIT if found(split, "data", "encod_data") is not None)
    if "train" not in splits:
        raise DataError(
            f"{where} holds {', '.join(sorted(arrays))}, and neither train_data nor "
            "train_encod_data; save the counts [trials, T, N] under one of these names."
        )

    def read(split: str) -> Raw:
        counts = _checked(found(split, "data", "encod_data"), f"{where}: {split}")
        truth = {}
        rates = found(split, "truth")
        latents = found(split, "lowd")
        if rates is not None:
            truth["rates"] = rates * BIN
        if latents is not None:
            truth["latents"] = latents
        return Raw(counts, None, 0, where, _names(counts), truth=truth or None)

    return Source(splits, read, where)


def _checked(counts: np.ndarray | None, where: str) -> np.ndarray:
    """Counts as floats, nan where -1 or nan stood.

    Raises:
      DataError: they are none.
    """
    array = np.asarray(counts, np.float64)
    if array.ndim != 3:
        raise DataError(
            f"{where} has shape {array.shape}; counts are wanted as [trials, T, N], of one "
            "recording [1, T, N]."
        )
    known = array[~np.isnan(array) & (array != -1.0)]
    if np.any(known < 0.0) or np.any(known != np.rint(known)):
        raise DataError(
            f"{where} holds numbers such as {known[(known < 0) | (known != np.rint(known))][0]:g}; "
            "counts are wanted, whole numbers from 0 (-1: not observed). Rates and smoothed "
            "counts are data for npz:FILE with config.data.kinds=gaussian."
        )
    return np.where(array == -1.0, np.nan, array)


def _beside(arrays: Arrays, counts: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Other arrays [trials, T, M] of numbers: behaviour, for `experiments.decode`.

    Raises:
      DataError: one is of other bins than the counts.
    """
    known = (*COUNTS, "condition", "dt", "rates", "latents")
    found = {}
    for name, array in arrays.items():
        is_number = array.dtype.kind in "fiu"
        if name in known or array.ndim != 3 or not is_number or len(array) != len(counts):
            continue
        if array.shape[1] != counts.shape[1]:
            raise DataError(
                f"{where} has {name} of {array.shape[1]} bins a trial and counts of "
                f"{counts.shape[1]}; save both at the same bins."
            )
        found[name] = np.asarray(array, np.float64)
    return found


def _require_width(width: float, counts: np.ndarray, where: str) -> None:
    """Raises DataError for a bin that is no width in seconds, by the firing rate that it means."""
    mean = float(np.nanmean(counts)) if np.isfinite(counts).any() else 0.0
    if not width > 0.0 or mean / width > FASTEST:
        raise DataError(
            f"{where} has bins of dt = {width:g} s, {mean / width if width > 0.0 else np.inf:,.0f} "
            f"spikes a second of a neuron in the mean, where {FASTEST:.0f} is the most there is; "
            "dt is in seconds."
        )


def _by_trial(
    array: np.ndarray, condition: np.ndarray | None, num_trials: int, where: str
) -> np.ndarray:
    """What is given by trial or by condition, [trials, T, ...]."""
    if len(array) == num_trials:
        return array
    names = None if condition is None else np.unique(condition, return_inverse=True)
    if names is None or len(names[0]) != len(array):
        raise DataError(
            f"{where} has rates or latents of {len(array):,} and {num_trials:,} trials; one for "
            "each trial is wanted, or one for each condition."
        )
    return array[names[1]]


def _names(counts: np.ndarray) -> tuple[str, ...]:
    return tuple(f"neuron_{n}" for n in range(counts.shape[-1]))
