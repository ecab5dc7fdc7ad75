"""What a corpus is to be looked at for before topics are fitted to it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vi_jax.topics.counts import Counts, Numpy, to_csr

MAX_REPEATS = 50  # of one word in one document
MAX_SHARE = 0.5  # of documents that a word is in
MIN_TOKENS = 500  # for each topic
_DEBRIS = ("\ufffd", "\u00c3", "\u00e2\u20ac", "\\x", "&amp", "&lt", "&gt", "nbsp")
_SHOWN = 5


class Finding(NamedTuple):
    """One thing that was found."""

    kind: str  # duplicates, empty, boilerplate, common, unused, debris, repeated_words, num_topics
    size: int  # documents or words
    where: Numpy  # which documents or words, [size]
    sentence: str


class Check(NamedTuple):
    """What `check` found; nothing is changed."""

    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        if not self.findings:
            return "nothing to look at"
        return "\n".join(f"- {found.sentence}" for found in self.findings)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def check(
    counts: Counts, vocab: Sequence[str] | None = None, *, num_topics: int | None = None
) -> Check:
    """Looks for duplicated and empty documents, words repeated beyond use, words in half of all
    documents or in none, debris of encodings, and more topics than the tokens carry.

    Args:
      counts: the corpus.
      vocab: its words, [V].
      num_topics: K, if known.

    Raises:
      ValueError: a vocabulary of another length.
    """
    if vocab is not None and len(vocab) != counts.num_words:
        raise ValueError(
            f"the vocabulary has {len(vocab):,} words, the counts {counts.num_words:,}."
        )
    found = [_empty(counts), _duplicates(counts), _boilerplate(counts, vocab)]
    found += [_common(counts, vocab), _unused(counts, vocab)]
    if vocab is not None:
        found += [_debris(vocab), _repeated_words(vocab)]
    if num_topics is not None and counts.num_tokens < MIN_TOKENS * num_topics:
        sentence = (
            f"{num_topics} topics of {counts.num_tokens:,} tokens: {MIN_TOKENS} tokens a topic "
            f"would allow {max(1, counts.num_tokens // MIN_TOKENS)}."
        )
        found.append(Finding("num_topics", num_topics, np.zeros(0, int), sentence))
    return Check(tuple(each for each in found if each is not None and each.size))


def _names(words: Any, vocab: Sequence[str] | None) -> str:
    shown = [str(word) if vocab is None else repr(str(vocab[word])) for word in words[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(words) > _SHOWN else "")


def _empty(counts: Counts) -> Finding:
    where = np.flatnonzero(counts.lengths == 0)
    sentence = f"{len(where):,} documents have no words; their shares are those of the prior."
    return Finding("empty", len(where), where, sentence)


def _duplicates(counts: Counts) -> Finding:
    """Documents of the same counts as an earlier one."""
    indptr, indices, data = to_csr(counts)
    seen: set[bytes] = set()
    where = []
    for doc in range(counts.num_docs):
        part = slice(indptr[doc], indptr[doc + 1])
        if part.start == part.stop:
            continue
        content = indices[part].tobytes() + data[part].tobytes()
        if content in seen:
            where.append(doc)
        seen.add(content)
    share = len(where) / counts.num_docs
    sentence = f"{len(where):,} documents ({share:.1%}) have the same counts as an earlier one."
    return Finding("duplicates", len(where), np.array(where, int), sentence)


def _boilerplate(counts: Counts, vocab: Sequence[str] | None) -> Finding:
    segments, cells = np.nonzero(counts.counts > MAX_REPEATS)
    where = np.unique(counts.doc[segments])
    sentence = ""
    if len(where):
        most = np.argmax(counts.counts[segments, cells])
        word = counts.ids[segments[most], cells[most]]
        times = int(counts.counts[segments[most], cells[most]])
        sentence = (
            f"{len(where):,} documents have one word more than {MAX_REPEATS} times; document "
            f"{counts.doc[segments[most]]} has {_names([word], vocab)} {times:,} times."
        )
    return Finding("boilerplate", len(where), where, sentence)


def _document_counts(counts: Counts) -> Numpy:
    return np.bincount(counts.ids[counts.counts > 0], minlength=counts.num_words)


def _common(counts: Counts, vocab: Sequence[str] | None) -> Finding:
    where = np.flatnonzero(_document_counts(counts) > MAX_SHARE * counts.num_docs)
    sentence = (
        f"{len(where):,} words are in more than {MAX_SHARE:.0%} of the documents: "
        f"{_names(where, vocab)}."
    )
    return Finding("common", len(where), where, sentence)


def _unused(counts: Counts, vocab: Sequence[str] | None) -> Finding:
    where = np.flatnonzero(counts.totals == 0)
    sentence = f"{len(where):,} words of the vocabulary never occur: {_names(where, vocab)}."
    return Finding("unused", len(where), where, sentence)


def _debris(vocab: Sequence[str]) -> Finding:
    marks = [any(mark in str(word) for mark in _DEBRIS) for word in vocab]
    where = np.flatnonzero(marks)
    sentence = f"{len(where):,} words look like debris of an encoding: {_names(where, vocab)}."
    return Finding("debris", len(where), where, sentence)


def _repeated_words(vocab: Sequence[str]) -> Finding:
    _, first = np.unique(np.asarray(vocab, str), return_index=True)
    where = np.setdiff1d(np.arange(len(vocab)), first)
    sentence = f"{len(where):,} words are listed twice in the vocabulary: {_names(where, vocab)}."
    return Finding("repeated_words", len(where), where, sentence)
