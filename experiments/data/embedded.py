"""Tables that scikit-learn carries: `breast_cancer` (569 x 30) and `wine` (178 x 13), reals."""

import numpy as np

from experiments.data.base import Raw, Source, require


def open_source(name: str) -> Source:
    """One split, `all`, with the class of each row as its label; raises DataError without
    scikit-learn.
    """
    datasets = require("sklearn.datasets", "scikit-learn", f"the data set {name!r}")

    def read(split: str) -> Raw:
        bunch = getattr(datasets, f"load_{name}")()
        names = tuple(map(str, bunch.feature_names))
        labels = bunch.target.astype(np.int64)
        return Raw(np.asarray(bunch.data), labels, 0, name, names)

    return Source(("all",), read, "embedded in scikit-learn")
