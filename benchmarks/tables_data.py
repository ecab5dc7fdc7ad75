"""The tables of `benchmarks.tables`: rows split, standardised, transformed and with holes, the same
for us and for the peers.
"""

from typing import NamedTuple

import numpy as np

SHIFT = 0.05  # of a column's SD, added before the logarithm: some columns have zeros


class Split(NamedTuple):
    """Rows standardised by the training rows, in an order that a seed of 0 gives; the first rows
    of `train` are the validation rows of those who want them.
    """

    name: str
    train: np.ndarray  # [N, D]
    test: np.ndarray
    zero: np.ndarray  # [D], where 0 of the raw columns is


def load(name: str) -> Split:
    """breast_cancer, wine or digits of scikit-learn, 80/20 by seed 0, columns that vary."""
    from sklearn import datasets

    x = getattr(datasets, f"load_{name}")().data
    order = np.random.default_rng(0).permutation(len(x))
    num_train = int(0.8 * len(x))
    train = x[order[:num_train]]
    varies = train.std(axis=0) > 0
    loc = train.mean(axis=0)[varies]
    scale = train.std(axis=0)[varies]
    rows = (x[order][:, varies] - loc) / scale
    return Split(name, rows[:num_train], rows[num_train:], -loc / scale)


def punch(split: Split, share: float) -> tuple[np.ndarray, np.ndarray]:
    """What is observed of the training and of the test rows where a share is missing completely
    at random.
    """
    rng = np.random.default_rng(1)
    return rng.random(split.train.shape) >= share, rng.random(split.test.shape) >= share


class Logarithm(NamedTuple):
    """u = (log(x - zero + SHIFT) - loc) / scale of standardised columns x whose raw values are at
    least 0; loc and scale by the observed training rows.
    """

    zero: np.ndarray
    loc: np.ndarray
    scale: np.ndarray

    def forward(self, x: np.ndarray) -> np.ndarray:
        return (np.log(x - self.zero + SHIFT) - self.loc) / self.scale

    def inverse(self, u: np.ndarray) -> np.ndarray:
        return np.exp(u * self.scale + self.loc) + self.zero - SHIFT

    def log_jacobian(self, x: np.ndarray) -> np.ndarray:
        """log |du / dx| of each row, [N]."""
        return -np.sum(np.log(x - self.zero + SHIFT) + np.log(self.scale), axis=1)


def logarithm(split: Split, observed: np.ndarray | None = None) -> Logarithm:
    """The transform of a split, from the training entries that are observed."""
    logs = np.log(split.train - split.zero + SHIFT)
    seen = logs if observed is None else np.where(observed, logs, np.nan)
    return Logarithm(split.zero, np.nanmean(seen, axis=0), np.nanstd(seen, axis=0))
