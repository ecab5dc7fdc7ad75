"""8x8 handwritten digits (Alpaydin & Kaynak 1998), embedded in scikit-learn: 1,797 images of levels
0..16.
"""

import numpy as np

from experiments.data.base import Raw, Source, require


def open_source() -> Source:
    """One split, `all`: images uint8 [1797, 8, 8], labels [1797]; raises DataError without
    scikit-learn.
    """
    datasets = require("sklearn.datasets", "scikit-learn", "the data set 'digits'")

    def read(split: str) -> Raw:
        bunch = datasets.load_digits()
        return Raw(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), num_levels=17)

    usual = ("all[:1257]", "all[1257:1437]", "all[1437:]")
    return Source(("all",), read, "embedded in scikit-learn", usual)
