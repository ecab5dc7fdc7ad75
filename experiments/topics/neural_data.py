"""Documents as the training loop has them: rows of words and counts."""

from typing import Any, NamedTuple

import numpy as np

import vi_jax as vi
from experiments.data import Dataset, Split
from experiments.topics.covariates import Encoded
from experiments.topics.load import Loaded, fingerprint

MOST_EVALUATED = 1_000  # training documents, where none are held out


class Held(NamedTuple):
    """What a model is evaluated on."""

    # rows, with "first" and "second" halves where documents are held out; a half has the covariates
    # of the whole document
    x: dict[str, Any]
    lengths: np.ndarray  # tokens, [N]
    name: str  # "test", or "train" where none are held out

    @property
    def has_halves(self) -> bool:
        """Whether the second halves can be predicted."""
        return "first" in self.x


def rows_of(counts: vi.topics.Counts, covariates: np.ndarray | None) -> dict[str, Any]:
    """Documents as a model takes them, covariates [N, C] among them where it has some."""
    rows: dict[str, Any] = vi.topics.as_rows(counts)
    return rows if covariates is None else {**rows, "covariates": covariates}


def columns_of(encoded: Encoded | None, part: str) -> np.ndarray | None:
    """The covariates of a part, [N, C]."""
    return None if encoded is None else encoded.columns[part]


def make_dataset(loaded: Loaded, name: str, encoded: Encoded | None) -> Dataset:
    """The documents of a corpus."""
    train = Split(rows_of(loaded.train, columns_of(encoded, "train")), None)
    test = train
    if loaded.test is not None:
        test = Split(rows_of(loaded.test, columns_of(encoded, "test")), None)
    source = loaded.corpus.source
    return Dataset(train, None, test, 0, name, source, fingerprint(loaded.corpus))


def held_out(loaded: Loaded, encoded: Encoded | None) -> Held:
    """The documents that are evaluated."""
    if loaded.test is None or loaded.halves is None:
        rows = np.arange(min(MOST_EVALUATED, loaded.train.num_docs))
        some = vi.topics.take(loaded.train, rows)
        columns = columns_of(encoded, "train")
        return Held(
            rows_of(some, None if columns is None else columns[rows]), some.lengths, "train"
        )
    columns = columns_of(encoded, "test")
    x = rows_of(loaded.test, columns)
    for half, counts in zip(("first", "second"), loaded.halves, strict=True):
        x[half] = rows_of(counts, columns)
    return Held(x, loaded.test.lengths, "test")
