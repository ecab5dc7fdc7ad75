"""The corpus of a config as the library takes it, and what is said of it."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vi_jax as vi
from experiments import cli, corpora
from experiments.corpora import Corpus, Sparse
from experiments.run import heartbeat
from experiments.run.contents import DATA
from experiments.topics import outputs
from vi_jax import files


class Loaded(NamedTuple):
    """A corpus as the library takes it."""

    corpus: Corpus
    train: vi.topics.Counts
    test: vi.topics.Counts | None
    halves: tuple[vi.topics.Counts, vi.topics.Counts] | None


def load(config: Any) -> Loaded:
    """The corpus of a config.

    Raises:
      UserError: it cannot be had, in a sentence.
    """
    try:
        with heartbeat.phase(f"reading {config.data.name}"):
            corpus = corpora.load(config.data)
            parts = corpus.parts
            size = len(corpus.vocab)
            train = _counts(parts["train"].counts, size)
            test = None
            halves = None
            if "test" in parts:
                test = _counts(parts["test"].counts, size)
                (first, second) = corpora.halves(parts["test"], config.data.split_seed)
                halves = (_counts(first, size), _counts(second, size))
    except (corpora.CorpusError, ValueError, TypeError) as error:
        raise cli.UserError(str(error)) from None
    return Loaded(corpus, train, test, halves)


def _counts(part: Sparse, num_words: int) -> vi.topics.Counts:
    return vi.topics.from_csr(part.indptr, part.indices, part.data, num_words=num_words)


def fingerprint(corpus: Corpus) -> str:
    """A hash of the vocabulary and of the counts of all parts."""
    hasher = hashlib.sha256("\n".join(corpus.vocab).encode())
    for part in corpus.parts.values():
        for array in part.counts:
            hasher.update(np.ascontiguousarray(array, np.int64).tobytes())
        for name, values in (part.beside or {}).items():
            hasher.update("\n".join([name, *map(str, values.tolist())]).encode())
    return hasher.hexdigest()


def check_data(workdir: Path, loaded: Loaded) -> None:
    """Records the corpus, or refuses another one than the run in the folder began with.

    Raises:
      UserError: the counts or the vocabulary have changed.
    """
    found = {"source": loaded.corpus.source, "fingerprint": fingerprint(loaded.corpus)}
    path = workdir / DATA
    if files.kind(path):
        before = outputs.read_json(path)
        if before.get("fingerprint") != found["fingerprint"]:
            raise cli.UserError(
                f"the documents have changed since the run in {workdir} began; give back the old "
                "ones, or name another --workdir."
            )
    files.write_json(path, found)


def report(loaded: Loaded, num_topics: int) -> list[str]:
    """What was read, in lines, with what looks wrong."""
    corpus = loaded.corpus
    train = loaded.train
    lines = [
        f"documents: {corpus.source}",
        f"documents: {train.num_docs:,} to train on, {train.num_tokens:,} tokens of "
        f"{train.num_words:,} words",
    ]
    if loaded.test is not None:
        lines.append(
            f"documents: {loaded.test.num_docs:,} held out, {loaded.test.num_tokens:,} tokens"
        )
    lines += [f"documents: {note}" for note in corpus.notes]
    check = vi.topics.check(train, corpus.vocab, num_topics=num_topics)
    return lines + [f"check: {finding.sentence}" for finding in check.findings]
