"""Corpora: documents by one field, `config.data.name`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.corpora import counted, texts
from experiments.corpora.base import Corpus, CorpusError, Part, Sparse, take

COUNTED: dict[str, Callable[..., Corpus]] = {
    "ldac": counted.ldac,
    "uci": counted.uci,
    "mtx": counted.mtx,
    "npz": counted.npz,
}
TEXTS: dict[str, Callable[..., texts.Texts]] = {
    "docstrings": texts.docstrings,
    "texts": texts.folder,
    "csv": texts.column,
    "jsonl": texts.field,
}
WITHOUT_COVARIATES = ("ldac", "uci", "mtx")
FORMS = (
    *("docstrings", "texts:DIR", "csv:FILE:COLUMN", "jsonl:FILE:FIELD", "ldac:FILE[,VOCAB]"),
    *("uci:FILE[,VOCAB]", "mtx:FILE[,VOCAB]", "npz:FILE"),
)

__all__ = ["COUNTED", "FORMS", "TEXTS", "Corpus", "CorpusError", "Part", "Sparse", "load"]


def load(data: Any) -> Corpus:
    """The corpus that config.data names, with documents held out where it has none of its own.

    Raises:
      CorpusError: there is no such corpus, or it cannot be read.
    """
    (kind, _, argument) = data.name.partition(":")
    names = covariate_names(data)
    if names and kind in WITHOUT_COVARIATES:
        raise CorpusError(
            f"{kind}: has words alone, and config.data.covariates names {names[0]!r}; give the "
            "documents as csv, jsonl or npz."
        )
    given = (names,) if names else ()
    if kind in COUNTED:
        corpus = COUNTED[kind](argument, *given)
    elif kind in TEXTS:
        words = texts.Words(
            data.token_pattern, data.stop_words, data.min_df, data.max_df, data.lowercase
        )
        corpus = texts.counted(TEXTS[kind](argument, *given), words)
    else:
        raise CorpusError(f"config.data.name is {data.name!r}; it can be {', '.join(FORMS)}.")
    if "test" not in corpus.parts and data.held_out > 0:
        corpus = hold_out(corpus, data.held_out, data.split_seed)
    return corpus


def covariate_names(data: Any) -> tuple[str, ...]:
    """The columns, fields or arrays that config.data.covariates names, with commas between."""
    text = data.get("covariates", "")
    return tuple(name.strip() for name in text.split(",") if name.strip())


def hold_out(corpus: Corpus, share: float, seed: int) -> Corpus:
    """The corpus with a share of its documents, drawn by a seed, as the test part.

    Raises:
      CorpusError: a part would be empty.
    """
    part = corpus.parts["train"]
    num = part.counts.num_docs
    num_test = round(share * num)
    if not 0 < num_test < num:
        raise CorpusError(
            f"{corpus.source} has {num:,} documents, and config.data.held_out={share:g} would hold "
            f"out {num_test:,}; set it to 0, or give more documents."
        )
    rows = np.random.default_rng(seed).permutation(num)
    test = np.sort(rows[:num_test])
    train = np.sort(rows[num_test:])
    note = f"{num_test:,} documents were drawn by split_seed={seed} and held out"
    return corpus._replace(
        parts={**corpus.parts, "train": select(part, train), "test": select(part, test)},
        notes=(*corpus.notes, note),
    )


def select(part: Part, rows: np.ndarray) -> Part:
    """Some documents of a part."""
    halves = None
    if part.halves is not None:
        halves = (take(part.halves[0], rows), take(part.halves[1], rows))
    order = None
    if part.order is not None:
        order = tuple(part.order[row] for row in rows)
    titles = tuple(part.titles[row] for row in rows) if part.titles else ()
    beside = None
    if part.beside is not None:
        beside = {name: values[rows] for name, values in part.beside.items()}
    return Part(take(part.counts, rows), titles, halves, order, beside)


def halves(part: Part, seed: int) -> tuple[Sparse, Sparse]:
    """The two halves of each document: in the order of its text, as the data set has them, or its
    tokens dealt by a seed.
    """
    if part.halves is not None:
        return part.halves
    rng = np.random.default_rng(seed)
    counts = np.asarray(part.counts.data, np.int64)
    docs = np.repeat(np.arange(part.counts.num_docs), np.diff(part.counts.indptr))
    tokens = np.repeat(np.arange(len(counts)), counts)  # the cell of each token
    shuffled = tokens[np.lexsort((rng.random(len(tokens)), docs[tokens]))]
    owner = docs[shuffled]
    lengths = np.bincount(owner, minlength=part.counts.num_docs)
    starts = np.cumsum(lengths) - lengths
    is_first = np.arange(len(shuffled)) - starts[owner] < lengths[owner] // 2
    first = np.bincount(shuffled[is_first], minlength=len(counts))
    return _kept(part.counts, first), _kept(part.counts, counts - first)


def _kept(whole: Sparse, counts: np.ndarray) -> Sparse:
    """The cells whose count is not 0."""
    docs = np.repeat(np.arange(whole.num_docs), np.diff(whole.indptr))
    kept = counts > 0
    sizes = np.bincount(docs[kept], minlength=whole.num_docs)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return Sparse(indptr, whole.indices[kept], counts[kept])
