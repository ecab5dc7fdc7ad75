"""8x8 handwritten digits (Alpaydin & Kaynak 1998), embedded in scikit-learn: 1,797 images of levels
0..16.

They are read from its file: to import scikit-learn for them takes as long as to import JAX.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from experiments.data.base import Raw, Source, require
from vi_jax import files

FILE = "datasets/data/digits.csv.gz"  # of scikit-learn: in each row 64 levels and the digit


def open_source() -> Source:
    """One split, `all`: images uint8 [1797, 8, 8], labels [1797]; raises DataError without
    scikit-learn.
    """
    file = _find()
    if file is None:
        require("sklearn.datasets", "scikit-learn", "the data set 'digits'")

    def read(split: str) -> Raw:
        rows = _rows(file)
        return Raw(rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1], num_levels=17)

    usual = ("all[:1257]", "all[1257:1437]", "all[1437:]")
    return Source(("all",), read, "embedded in scikit-learn", usual)


def _find() -> Path | None:
    """The file, in a scikit-learn that is installed as usual."""
    found = find_spec("sklearn")
    folders = () if found is None else found.submodule_search_locations
    paths = [Path(folder) / FILE for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


def _rows(file: Path | None) -> np.ndarray:
    """Levels and digit of each image, int64 [1797, 65]."""
    if file is not None:
        lines = gzip.decompress(files.read_bytes(file, follow=True)).decode().split()
        return np.array([line.split(",") for line in lines], float).astype(np.int64)
    datasets = require("sklearn.datasets", "scikit-learn", "the data set 'digits'")
    bunch = datasets.load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.int64)
