"""Arrays of images of any kind as 8-bit pixel values: channels, scale, size, said aloud."""

from collections.abc import Mapping

import numpy as np

from experiments.data.base import Raw
from experiments.data.levels import as_levels


def as_images(stored: Mapping[str, Raw]) -> dict[str, Raw]:
    """The splits of a source, those that are arrays of any kind as levels [N, *shape].

    Raises:
      DataError: an array cannot be read as images.
    """
    read = {}
    for split, raw in stored.items():
        if not raw.num_levels:
            levels, num_levels = as_levels(np.asarray(raw.x), raw.where)
            raw = raw._replace(x=levels, num_levels=num_levels)
        read[split] = raw
    return read
