"""Covariates of documents: labels and numbers of the training documents as columns for a model."""

from typing import NamedTuple

import numpy as np

from experiments.cli import UserError
from experiments.topics.load import Loaded

MOST_NUMBERS = 20  # different numbers that are taken as labels, one by one
MOST_SHARE = 0.5  # of the training documents that labels may be, so that each has some documents


class Covariate(NamedTuple):
    """One covariate, as the training documents have it."""

    name: str
    levels: tuple[str, ...]  # labels, in order; none for a number
    loc: np.ndarray  # mean of each of its columns over training documents, [c]
    scale: float  # of a number, its standard deviation; 1 for labels

    @property
    def effects(self) -> list[str]:
        """What each of its columns is called, [c]."""
        if not self.levels:
            return [f"{self.name}, one standard deviation more"]
        return [f"{self.name} = {level}" for level in self.levels]


class Encoded(NamedTuple):
    """The covariates of a corpus; a document of 0 everywhere is the average one."""

    covariates: tuple[Covariate, ...]
    columns: dict[str, np.ndarray]  # of the parts, float32 [N, C]

    @property
    def num_columns(self) -> int:
        """C."""
        return sum(len(each.loc) for each in self.covariates)

    @property
    def names(self) -> list[str]:
        """Of all columns, [C]."""
        return [name for each in self.covariates for name in each.effects]

    def lines(self) -> list[str]:
        """How each was taken."""
        found = []
        for each in self.covariates:
            what = f"{len(each.levels)} labels, a column each, less its mean"
            if not each.levels:
                what = f"a number, less its mean {each.loc[0]:.6g}, in units of {each.scale:.6g}"
            found.append(f"covariate {each.name}: {what}")
        return found


def encode(loaded: Loaded) -> Encoded | None:
    """The covariates that config.data asked for; None where it asked for none.

    Raises:
      UserError: a value is missing, a label is of held-out documents alone, all documents have the
        same, or there are too many labels, in a sentence.
    """
    train = loaded.corpus.parts["train"].beside
    if train is None:
        return None
    parts = {"train": train}
    test = loaded.corpus.parts.get("test")
    if test is not None and test.beside is not None:
        parts["test"] = test.beside
    made = tuple(_of_training(name, values) for name, values in train.items())
    columns = {}
    for part, values in parts.items():
        blocks = [_columns(each, values[each.name], part) for each in made]
        columns[part] = np.concatenate(blocks, axis=1).astype(np.float32)
    return Encoded(made, columns)


def _of_training(name: str, values: np.ndarray) -> Covariate:
    _require_all(name, values, "train")
    levels = np.unique(values)
    if len(levels) == 1:
        raise UserError(
            f"the covariate {name!r} is {levels[0]} for every training document: it says nothing; "
            "leave it out of config.data.covariates."
        )
    if values.dtype.kind == "f" and len(levels) > MOST_NUMBERS:
        return Covariate(name, (), np.array([values.mean()]), float(values.std()))
    if len(levels) > MOST_SHARE * len(values):
        raise UserError(
            f"the covariate {name!r} has {len(levels):,} labels for {len(values):,} training "
            "documents, as a name or a number of each would; give one whose labels many documents "
            "share."
        )
    texts = _texts(values)
    ordered = tuple(str(text) for text in _texts(levels))
    shares = np.array([np.mean(texts == level) for level in ordered])
    return Covariate(name, ordered, shares, 1.0)


def _columns(covariate: Covariate, values: np.ndarray, part: str) -> np.ndarray:
    """[N, c] of a part."""
    _require_all(covariate.name, values, part)
    if not covariate.levels:
        if values.dtype.kind != "f":
            raise UserError(
                f"the covariate {covariate.name!r} is a number in the training documents, and in "
                "held-out ones a text."
            )
        return (values[:, None] - covariate.loc) / covariate.scale
    texts = _texts(values)
    unseen = sorted(set(texts.tolist()) - set(covariate.levels))
    if unseen:
        num = int(np.sum(texts == unseen[0]))
        raise UserError(
            f"the covariate {covariate.name!r} is {unseen[0]!r} for {num:,} held-out documents and "
            "for no training document, so that nothing is known of it; hold out others "
            "(config.data.split_seed), or join it with another label."
        )
    return (texts[:, None] == np.array(covariate.levels)) - covariate.loc


def _require_all(name: str, values: np.ndarray, part: str) -> None:
    """Raises UserError where a document has no value."""
    is_missing = ~np.isfinite(values) if values.dtype.kind == "f" else values == ""
    if is_missing.any():
        what = "training" if part == "train" else "held-out"
        raise UserError(
            f"the covariate {name!r} is missing for {int(is_missing.sum()):,} of {len(values):,} "
            f"{what} documents (the first is number {int(np.argmax(is_missing))} of them); fill it "
            "in, or leave these documents out."
        )


def _texts(values: np.ndarray) -> np.ndarray:
    """Values as labels: a whole number without its point."""
    if values.dtype.kind != "f":
        return values
    return np.array([f"{value:.10g}" for value in values.tolist()])
