"""Documents that were counted already: LDA-C, UCI, MatrixMarket and arrays of NumPy and SciPy."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.corpora.base import (
    Corpus,
    CorpusError,
    Part,
    Sparse,
    existing,
    from_triples,
    named_vocab,
    read_text,
    read_vocab,
    reading,
)
from vi_jax import files

SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}


def _file_and_vocab(argument: str) -> tuple[Path, tuple[str, ...] | None]:
    """FILE[,VOCAB]."""
    file, comma, vocab = argument.partition(",")
    return existing(file, "the file"), read_vocab(vocab) if comma else None


def ldac(argument: str) -> Corpus:
    """`M id:count id:count ...` in each line, ids from 0, as of Blei's lda-c; a blank line is an
    empty document.

    Raises:
      CorpusError: a line that is none of these, by its number.
    """
    (path, vocab) = _file_and_vocab(argument)
    docs: list[int] = []
    words: list[int] = []
    counts: list[int] = []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines):
        found = _pairs(line, f"{path}, line {number + 1}")
        docs += [number] * len(found)
        words += [word for word, _ in found]
        counts += [count for _, count in found]
    size = len(vocab) if vocab else max(words, default=-1) + 1
    _require_inside(words, size, f"{path}")
    part = Part(from_triples(docs, words, counts, len(lines)))
    return Corpus(str(path), named_vocab(vocab, size, str(path)), {"train": part})


def _pairs(line: str, where: str) -> list[tuple[int, int]]:
    """(id, count) of a line."""
    fields = line.split()
    if not fields:
        return []
    try:
        size = int(fields[0])
        pairs = [
            (int(word), int(count)) for word, count in (each.split(":") for each in fields[1:])
        ]
    except ValueError:
        raise CorpusError(
            f"{where} is {line[:60]!r}; it has to be `M id:count id:count ...`, whole numbers."
        ) from None
    if size != len(pairs):
        raise CorpusError(f"{where} says {size} words and has {len(pairs)}.")
    return pairs


def _require_inside(words: Any, size: int, where: str) -> None:
    found = np.asarray(words, np.int64)
    if len(found) and (found.min() < 0 or found.max() >= size):
        raise CorpusError(
            f"{where} has words from {found.min()} to {found.max():,}, and its vocabulary has "
            f"{size:,}, counted from 0."
        )


def uci(argument: str) -> Corpus:
    """docword.NAME.txt of the UCI bag of words: three lines with D, W and the number of cells, then
    `document word count`, both counted from 1.

    Raises:
      CorpusError: the header and the body do not agree.
    """
    (path, vocab) = _file_and_vocab(argument)
    text = read_text(path)
    with reading(path):
        try:
            values = np.array(text.split(), np.int64)
        except ValueError as error:
            raise CorpusError(f"{path} has something that is no whole number ({error}).") from None
    if len(values) < 3 or (len(values) - 3) % 3:
        raise CorpusError(
            f"{path} has {len(values):,} numbers; it has to have three, D, W and the number of "
            "cells, and then three for each cell."
        )
    (num_docs, num_words, num_cells) = (int(each) for each in values[:3])
    triples = values[3:].reshape(-1, 3)
    if len(triples) != num_cells:
        raise CorpusError(
            f"{path} says {num_cells:,} cells in its header and has {len(triples):,}."
        )
    for column, size, what in ((0, num_docs, "documents"), (1, num_words, "words")):
        ids = triples[:, column]
        if len(ids) and (ids.min() < 1 or ids.max() > size):
            hint = "; they seem to be counted from 0" if ids.min() == 0 else ""
            raise CorpusError(
                f"{path} has {what} from {ids.min()} to {ids.max():,}, and its header says "
                f"{size:,}, counted from 1{hint}."
            )
    counts = from_triples(triples[:, 0] - 1, triples[:, 1] - 1, triples[:, 2], num_docs)
    return Corpus(str(path), named_vocab(vocab, num_words, str(path)), {"train": Part(counts)})


def mtx(argument: str) -> Corpus:
    """A MatrixMarket file of documents by words.

    Raises:
      CorpusError: it is none, is complex or a pattern, or seems to be words by documents.
    """
    from scipy import io, sparse

    (path, vocab) = _file_and_vocab(argument)
    with reading(path):
        try:
            matrix = sparse.coo_array(io.mmread(path))
        except ValueError as error:
            raise CorpusError(f"{path} is no MatrixMarket file ({error}).") from None
    if matrix.dtype.kind not in "iuf":
        raise CorpusError(f"{path} holds numbers of type {matrix.dtype}; counts are wanted.")
    (num_docs, num_words) = matrix.shape
    if vocab is not None and num_words != len(vocab) == num_docs:
        raise CorpusError(
            f"{path} is {num_docs:,} x {num_words:,} and its vocabulary has {len(vocab):,} words: "
            "it is words by documents; transpose it."
        )
    counts = from_triples(matrix.coords[0], matrix.coords[1], matrix.data, num_docs)
    return Corpus(str(path), named_vocab(vocab, num_words, str(path)), {"train": Part(counts)})


def npz(argument: str, covariates: tuple[str, ...] = ()) -> Corpus:
    """Arrays `data`, `indices`, `indptr` (of scipy.sparse.save_npz too), or the same with a prefix
    `train_`, `valid_`, `test_`, and `test_h1_`, `test_h2_` for the halves of documents; `vocab`,
    words, and `train_titles`, where they are there. A covariate NAME is the array `train_NAME`, of
    the test documents `test_NAME`, or NAME where there are no splits.

    Raises:
      CorpusError: it is none, or an array is missing, of another length or of Python objects.
    """
    path = existing(argument, "the file")
    found = _arrays(path)
    prefixes = [name[: -len("indptr")] for name in found if name.endswith("indptr")]
    parts = {}
    for prefix in prefixes:
        name = prefix.rstrip("_") or "train"
        if name in SPLITS:
            part = _part(found, path, name, prefix)
            if name in ("train", "test"):
                part = _with_covariates(part, found, path, prefix, covariates)
            parts[SPLITS[name]] = part
    if "train" not in parts:
        raise CorpusError(
            f"{path} has no documents: data, indices and indptr are wanted, by themselves or as "
            f"train_data and so on; it has {', '.join(sorted(found)) or 'nothing'}."
        )
    words = tuple(str(word) for word in found["vocab"]) if "vocab" in found else None
    size = len(words) if words else _num_words(found, prefixes)
    return Corpus(str(path), named_vocab(words, size, str(path)), parts)


def _arrays(path: Path) -> dict[str, Any]:
    """All arrays of an .npz; nothing is unpickled."""
    with reading(path):
        try:
            with files.read_npz(path, follow=True) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, AttributeError, zipfile.BadZipFile, KeyError) as error:
            raise CorpusError(f"{path} cannot be read as arrays ({error}).") from None


def _part(found: dict[str, Any], path: Path, name: str, prefix: str) -> Part:
    counts = _sparse(found, path, prefix)
    halves = None
    if f"{name}_h1_indptr" in found and f"{name}_h2_indptr" in found:
        halves = (_sparse(found, path, f"{name}_h1_"), _sparse(found, path, f"{name}_h2_"))
    titles: tuple[str, ...] = ()
    for field in (f"{prefix}titles", f"{prefix}title_labels"):
        if len(found.get(field, ())) == counts.num_docs:
            titles = tuple(str(title) for title in found[field])
    return Part(counts, titles, halves)


def _with_covariates(
    part: Part, found: dict[str, Any], path: Path, prefix: str, names: tuple[str, ...]
) -> Part:
    """The part with what the arrays of these names say of its documents."""
    if not names:
        return part
    num_docs = part.counts.num_docs
    beside = {}
    for name in names:
        if prefix + name not in found:
            raise CorpusError(
                f"config.data.covariates names {name!r}, and {path} has no array {prefix + name}; "
                f"it has {', '.join(sorted(found))}."
            )
        values = found[prefix + name]
        if values.shape != (num_docs,) or values.dtype.kind not in "biufU":
            raise CorpusError(
                f"{path}: {prefix + name} is of type {values.dtype} and shape {values.shape}; a "
                f"covariate has a text or a number for each of {num_docs:,} documents."
            )
        beside[name] = values if values.dtype.kind == "U" else values.astype(np.float64)
    return part._replace(beside=beside)


def _sparse(found: dict[str, Any], path: Path, prefix: str) -> Sparse:
    for field in ("data", "indices", "indptr"):
        if prefix + field not in found:
            raise CorpusError(f"{path} has {prefix}indptr and no {prefix}{field}.")
        if found[prefix + field].dtype.kind not in "iuf":
            kind = found[prefix + field].dtype
            raise CorpusError(f"{path}: {prefix}{field} is of type {kind}; numbers are wanted.")
    return Sparse(*(found[prefix + field] for field in ("indptr", "indices", "data")))


def _num_words(found: dict[str, Any], prefixes: list[str]) -> int:
    """The width of the matrix where it is said, else the largest word that occurs, and one."""
    if "shape" in found and len(found["shape"]) == 2:
        return int(found["shape"][1])
    return 1 + max(int(found[f"{prefix}indices"].max(initial=-1)) for prefix in prefixes)
