"""Arrays of images of any kind as pixel values of 8 bits or 16: channels, scale, transparency,
size; each change is said aloud.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.data import resize, scale
from experiments.data.base import Raw
from experiments.data.channels import channels_last
from experiments.data.lazy import OnDisk
from experiments.data.levels import check_rows
from experiments.data.rules import FULL_DEPTH, Rules


def as_images(stored: Mapping[str, Raw], rules: Rules | None = None) -> dict[str, Raw]:
    """The splits of a source as levels, uint8 (or uint16, config.data.depth) [N, *shape]; images on
    disk as they are.

    Args:
      stored: by split; those of 0 levels are arrays of any kind.
      rules: how they are read; the defaults of config.data if not given.

    Raises:
      DataError: an array cannot be read as images.
    """
    rules = rules or Rules()
    read = dict(stored)
    read |= _levels({split: raw for split, raw in stored.items() if not raw.num_levels}, rules)
    said = next(iter(read), "")
    return {split: _brought_to(raw, rules, aloud=split == said) for split, raw in read.items()}


def _levels(stored: Mapping[str, Raw], rules: Rules) -> dict[str, Raw]:
    """Arrays of any kind as levels of one scale."""
    if not stored:
        return {}
    where = next(iter(stored.values())).where
    arrays = {split: _as_array(raw.x) for split, raw in stored.items()}
    for split, array in arrays.items():
        check_rows(array, stored[split].where)
    arrays = channels_last(arrays, rules.channels, where)
    is_deep = rules.depth == FULL_DEPTH
    arrays, num_levels = scale.as_levels(arrays, rules.scale, where, is_deep=is_deep)
    return {
        split: stored[split]._replace(x=array, num_levels=num_levels)
        for split, array in arrays.items()
    }


def _brought_to(raw: Raw, rules: Rules, *, aloud: bool) -> Raw:
    """Images of the size and the channels that are asked for."""
    if not isinstance(raw.x, OnDisk):
        (x, num_levels) = resize.brought_to(raw.x, raw.num_levels, rules, raw.where, aloud=aloud)
        return raw._replace(x=x, num_levels=num_levels)
    one = np.zeros((1, *raw.x.shape[1:]), raw.x.dtype)
    (_, num_levels) = resize.brought_to(one, raw.num_levels, rules, raw.where, aloud=aloud)

    def change(images: np.ndarray) -> np.ndarray:
        return resize.brought_to(images, raw.num_levels, rules, raw.where, aloud=False)[0]

    return raw._replace(x=raw.x.changed(change), num_levels=num_levels)


def _as_array(x: Any) -> Any:
    return x if isinstance(x, OnDisk) else np.asarray(x)
