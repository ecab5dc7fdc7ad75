"""Single fields of config.data, checked as they are read."""

import operator
from typing import Any

from experiments.data.base import DataError, did_you_mean

BINARISATIONS = ("dynamic", "static", "none")


def setting(config_data: Any, key: str, kind: type) -> Any:
    """`config_data.key`, of the wanted type; raises DataError."""
    try:
        value = getattr(config_data, key)
    except AttributeError as error:
        raise DataError(
            f"config.data has no {key!r}; see configs/vae.py for what it holds."
        ) from error
    if not isinstance(value, kind):
        raise DataError(
            f"config.data.{key}={value!r} is {type(value).__name__}, where {kind.__name__} was "
            "wanted."
        )
    return value


def seed(config_data: Any, key: str) -> int:
    """A seed, an integer of 0 or more; raises DataError."""
    value = setting(config_data, key, object)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise DataError(
            f"config.data.{key}={value!r} is no seed; give an integer of 0 or more."
        ) from error
    if number < 0:
        raise DataError(f"config.data.{key}={number} is no seed; give an integer of 0 or more.")
    return number


def static_seed(config_data: Any) -> int | None:
    """The seed of static binarisation, None for the other kinds."""
    kind = setting(config_data, "binarisation", str)
    if kind not in BINARISATIONS:
        hint = did_you_mean(kind, BINARISATIONS)
        raise DataError(
            f"config.data.binarisation={kind!r} is none of {', '.join(BINARISATIONS)}.{hint}"
        )
    return seed(config_data, "static_seed") if kind == "static" else None


def limit_mb(config_data: Any) -> float:
    """device_limit_mb, 2048 where it is absent; raises DataError."""
    limit = getattr(config_data, "device_limit_mb", 2048)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
        raise DataError(
            f"config.data.device_limit_mb={limit!r} is no size; give a number of MB, 0 or more."
        )
    return limit
