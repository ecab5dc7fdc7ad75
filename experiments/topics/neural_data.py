"""Documents as the training loop has them: rows of words and counts."""

from typing import Any, NamedTuple

import numpy as np

import vi_jax as vi
from experiments.data import Dataset, Split
from experiments.topics.load import Loaded, fingerprint

MOST_EVALUATED = 1_000  # training documents, where none are held out


class Held(NamedTuple):
    """What a model is evaluated on."""

    x: dict[str, Any]  # rows, with "first" and "second" halves where documents are held out
    lengths: np.ndarray  # tokens, [N]
    name: str  # "test", or "train" where none are held out

    @property
    def has_halves(self) -> bool:
        """Whether the second halves can be predicted."""
        return "first" in self.x


def make_dataset(loaded: Loaded, name: str) -> Dataset:
    """The documents of a corpus."""
    train = Split(vi.topics.as_rows(loaded.train), None)
    test = train if loaded.test is None else Split(vi.topics.as_rows(loaded.test), None)
    source = loaded.corpus.source
    return Dataset(train, None, test, 0, name, source, fingerprint(loaded.corpus))


def held_out(loaded: Loaded) -> Held:
    """The documents that are evaluated."""
    if loaded.test is None or loaded.halves is None:
        rows = np.arange(min(MOST_EVALUATED, loaded.train.num_docs))
        some = vi.topics.take(loaded.train, rows)
        return Held(vi.topics.as_rows(some), some.lengths, "train")
    x: dict[str, Any] = vi.topics.as_rows(loaded.test)
    for half, counts in zip(("first", "second"), loaded.halves, strict=True):
        x[half] = vi.topics.as_rows(counts)
    return Held(x, loaded.test.lengths, "test")
