"""From the name in a config to an opened source: the one place that knows which sources there
are.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from experiments.choices import is_in_file
from experiments.data import (
    binarized,
    delimited,
    digits,
    embedded,
    folder,
    hdf5,
    idx,
    lorenz,
    npz,
    oscillations,
    own,
    parquet,
    photos,
    rotations,
    shapes,
    spikes,
    tfds,
)
from experiments.data.base import DataError, Source, did_you_mean
from experiments.data.options import Options
from experiments.data.rules import Rules

_HELD_OUT = ("train[:50000]", "train[50000:]", "test")  # of MNIST and Fashion-MNIST
_PLAIN: dict[str, Callable[[str], Source]] = {
    "digits": lambda data_dir: digits.open_source(),
    "mnist": lambda data_dir: idx.open_source("mnist", data_dir)._replace(usual=_HELD_OUT),
    "fashion_mnist": lambda data_dir: idx.open_source("fashion_mnist", data_dir)._replace(
        usual=_HELD_OUT
    ),
    "binarized_mnist": binarized.open_source,
    "breast_cancer": lambda data_dir: embedded.open_source("breast_cancer"),
    "wine": lambda data_dir: embedded.open_source("wine"),
    "oscillations": lambda data_dir: oscillations.open_source(),
    "photos": lambda data_dir: photos.open_source(),
    "shapes": lambda data_dir: shapes.open_source(shapes.FULL),
    "shapes_small": lambda data_dir: shapes.open_source(shapes.SMALL),
    "lorenz": lambda data_dir: lorenz.open_source(),
    "rotations": lambda data_dir: rotations.open_source(),
}
_PREFIXED: dict[str, Callable[[str, "Reading"], Source]] = {
    "tfds": lambda argument, reading: tfds.open_source(
        argument, reading.data_dir, reading.limit_mb
    ),
    "npz": lambda argument, reading: npz.open_source(argument, reading.data_dir, reading.limit_mb),
    "images": lambda argument, reading: folder.open_source(
        argument, reading.data_dir, reading.limit_mb, reading.rules
    ),
    "csv": lambda argument, reading: delimited.open_source(
        argument, reading.data_dir, reading.options
    ),
    "h5": lambda argument, reading: hdf5.open_source(argument, reading.data_dir),
    "parquet": lambda argument, reading: parquet.open_source(argument, reading.data_dir),
    "spikes": lambda argument, reading: spikes.open_source(
        argument, reading.data_dir, bin_ms=reading.options.bin_ms
    ),
}
NAMES = tuple(_PLAIN)
AHEAD = ("csv",)  # sources that are read while the command still starts
PREFIXES = {
    "tfds": "NAME",
    "npz": "FILE",
    "images": "DIR",
    "csv": "FILE",
    "parquet": "FILE",
    "h5": "FILE:KEY",
    "spikes": "FILE",
}


def check_name(name: str) -> None:
    """Raises DataError for a data name that cannot be one, before anything slow."""
    if not isinstance(name, str):
        raise DataError(
            f"config.data.name={name!r} is no string; give one of {', '.join(all_names())}."
        )
    if is_in_file(name):
        return
    prefix, colon, argument = name.partition(":")
    if name in _PLAIN or (colon and prefix in _PREFIXED and argument):
        return
    if prefix in _PREFIXED:
        raise DataError(
            f"config.data.name={name!r} stops short; write {prefix}:{PREFIXES[prefix]}."
        )
    hint = did_you_mean(prefix, [*_PLAIN, *_PREFIXED])
    raise DataError(
        f"config.data.name={name!r} is not known; it is one of {', '.join(all_names())}.{hint}"
    )


def all_names() -> list[str]:
    """What a data name can be."""
    prefixed = [f"{prefix}:{argument}" for prefix, argument in PREFIXES.items()]
    return [*_PLAIN, *prefixed, "FILE.py:FUNCTION"]


class Reading(NamedTuple):
    """How the files of a source are read."""

    data_dir: str
    limit_mb: float  # of a data set, from which on it stays on disk where it can
    rules: Rules  # of images
    options: Options  # of tables


def open_source(name: str, reading: Reading) -> Source:
    """The source called `name`; raises DataError."""
    check_name(name)
    if is_in_file(name):
        return own.open_source(name, reading.limit_mb)
    reading = reading._replace(data_dir=os.path.expanduser(reading.data_dir))
    prefix, _, argument = name.partition(":")
    if not argument:
        return _PLAIN[prefix](reading.data_dir)
    return _PREFIXED[prefix](os.path.expanduser(argument), reading)
