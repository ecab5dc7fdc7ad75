"""From the name in a config to an opened source: the one place that knows which sources there
are.
"""

import os
from collections.abc import Callable

from experiments.choices import is_in_file
from experiments.data import binarized, digits, folder, idx, npz, own, tfds
from experiments.data.base import DataError, Source, did_you_mean
from experiments.data.rules import Rules

_PLAIN: dict[str, Callable[[str], Source]] = {
    "digits": lambda data_dir: digits.open_source(),
    "mnist": lambda data_dir: idx.open_source("mnist", data_dir),
    "fashion_mnist": lambda data_dir: idx.open_source("fashion_mnist", data_dir),
    "binarized_mnist": binarized.open_source,
}
_PREFIXED: dict[str, Callable[[str, str, float, Rules], Source]] = {
    "tfds": lambda argument, data_dir, limit_mb, rules: tfds.open_source(argument, data_dir),
    "npz": lambda argument, data_dir, limit_mb, rules: npz.open_source(argument, data_dir),
    "images": folder.open_source,
}
NAMES = tuple(_PLAIN)
PREFIXES = {"tfds": "NAME", "npz": "FILE", "images": "DIR"}


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


def open_source(name: str, data_dir: str, limit_mb: float, rules: Rules | None = None) -> Source:
    """The source called `name`, files of images read by `rules`; raises DataError."""
    check_name(name)
    if is_in_file(name):
        return own.open_source(name)
    data_dir = os.path.expanduser(data_dir)
    prefix, _, argument = name.partition(":")
    if not argument:
        return _PLAIN[prefix](data_dir)
    return _PREFIXED[prefix](os.path.expanduser(argument), data_dir, limit_mb, rules or Rules())
