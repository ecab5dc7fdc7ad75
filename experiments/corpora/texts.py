"""Texts: folders, columns of a csv, fields of JSON lines, and the documentation of installed
libraries; how they become words.
"""

import ast
import csv
import importlib.util
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.corpora.base import (
    Corpus,
    CorpusError,
    Part,
    Sparse,
    as_values,
    existing,
    from_triples,
    read_text,
    reading,
)
from vi_jax import files

LIBRARIES = ("scipy", "sklearn")
SHORTEST = 600  # characters of a docstring that is taken
ENDINGS = ("", ".txt", ".md", ".rst", ".text")


class Words(NamedTuple):
    """How a text becomes words: config.data of a corpus of texts."""

    token_pattern: str
    stop_words: str  # "english", "" or a file of them
    min_df: int  # documents that a word has to be in
    max_df: float  # share of the documents that it may be in
    lowercase: bool


class Texts(NamedTuple):
    """Texts as they were read."""

    source: str
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    beside: dict[str, np.ndarray] | None = None  # as of `Part`


def docstrings(argument: str = "", names: tuple[str, ...] = ()) -> Texts:
    """The documentation of SciPy's and scikit-learn's public functions and classes, from the
    installed sources, which are parsed and not run: real English on known subjects, there wherever
    this package is, since it depends on them. Its one covariate is `library`.

    Raises:
      CorpusError: another covariate is asked for.
    """
    del argument
    _require(names, ("library",), "the docstrings")
    found: dict[str, str] = {}
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        for root in map(Path, places):
            for path in sorted(root.rglob("*.py")):
                if not {"tests", "externals", "_external"} & set(path.parts):
                    found |= _documented(library, path)
    by_text = {text: title for title, text in found.items()}  # a text that stands twice, once
    titles = tuple(by_text.values())
    source = f"docstrings of {' and '.join(LIBRARIES)}"
    beside = None
    if names:
        beside = {"library": as_values([title.partition(".")[0] for title in titles])}
    return Texts(source, titles, tuple(by_text), beside=beside)


def _require(names: tuple[str, ...], has: Iterable[str], where: str) -> None:
    """Raises CorpusError for a covariate that there is none of."""
    known = tuple(has)
    for asked in names:
        if asked not in known:
            raise CorpusError(
                f"config.data.covariates names {asked!r}, which {where} has not; it has "
                f"{', '.join(known)}."
            )


def _documented(library: str, path: Path) -> dict[str, str]:
    """{name: docstring} of the public functions and classes of a file."""
    source = files.read_text(path, follow=True)
    if '"""' not in source:
        return {}
    found = {}
    for node in ast.parse(source).body:
        is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
        text = ast.get_docstring(node) if is_public else None  # type: ignore[arg-type]
        if text is not None and len(text) >= SHORTEST:
            found[f"{library}.{path.stem}.{node.name}"] = text  # type: ignore[attr-defined]
    return found


def folder(argument: str, names: tuple[str, ...] = ()) -> Texts:
    """Every file of text in a folder and those below it, in the order of their names; symbolic
    links are not followed. Its one covariate is `folder`, the first one below it that holds a file.

    Raises:
      CorpusError: there is no such folder, or no file of text in it; or another covariate.
    """
    _require(names, ("folder",), "a folder of texts")
    root = existing(argument, "the folder")
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    kept = [path for path in paths if path.suffix.lower() in ENDINGS]
    if not kept:
        raise CorpusError(
            f"{root} has no file of text ({', '.join(ENDINGS[1:])}, or a name without an ending) "
            f"among its {len(paths):,} files."
        )
    notes: tuple[str, ...] = ()
    if len(kept) < len(paths):
        notes = (f"{len(paths) - len(kept):,} files with other endings were left out",)
    titles = tuple(str(path.relative_to(root)) for path in kept)
    beside = None
    if names:
        below = [path.relative_to(root).parts for path in kept]
        beside = {"folder": np.array([parts[0] if len(parts) > 1 else "" for parts in below])}
    return Texts(str(root), titles, tuple(read_text(path) for path in kept), notes, beside)


def column(argument: str, covariates: tuple[str, ...] = ()) -> Texts:
    """A column of a csv with a header: FILE:COLUMN; covariates are other columns.

    Raises:
      CorpusError: there is no such file or column.
    """
    (file, colon, name) = argument.rpartition(":")
    if not colon:
        raise CorpusError(f"csv:{argument} names no column; give csv:FILE:COLUMN.")
    path = existing(file, "the file")
    with reading(path):
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        names = list(rows.fieldnames or [])
        if name not in names:
            raise CorpusError(f"{path} has no column {name!r}; it has {', '.join(names)}.")
        _require(covariates, names, str(path))
        try:
            read = list(rows)
        except csv.Error as error:
            raise CorpusError(f"{path}, line {rows.line_num}: {error}.") from None
    texts = tuple(row[name] or "" for row in read)
    beside = {each: as_values([row[each] for row in read]) for each in covariates}
    return Texts(f"{path}, column {name}", (), texts, beside=beside or None)


def field(argument: str, covariates: tuple[str, ...] = ()) -> Texts:
    """A field of JSON lines: FILE:FIELD; covariates are other fields, texts or numbers.

    Raises:
      CorpusError: there is no such file, a line is no JSON object, or has no text there.
    """
    (file, colon, name) = argument.rpartition(":")
    if not colon:
        raise CorpusError(f"jsonl:{argument} names no field; give jsonl:FILE:FIELD.")
    path = existing(file, "the file")
    texts = []
    seen: dict[str, None] = {}
    beside: dict[str, list[Any]] = {each: [] for each in covariates}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}, line {number} is no JSON ({error.msg}).") from None
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise CorpusError(f"{path}, line {number} has no text in {name!r}; it has {has}.")
        texts.append(row[name])
        seen |= dict.fromkeys(row)
        for each, values in beside.items():
            values.append(_scalar(row.get(each), f"{path}, line {number}", each))
    _require(covariates, seen, str(path))
    made = {each: as_values(values) for each, values in beside.items()}
    return Texts(f"{path}, field {name}", (), tuple(texts), beside=made or None)


def _scalar(value: Any, where: str, name: str) -> Any:
    """A text, a number or nothing.

    Raises:
      CorpusError: a list or an object.
    """
    if isinstance(value, list | dict):
        kind = type(value).__name__
        raise CorpusError(f"{where} has a {kind} in {name!r}; a covariate is a text or a number.")
    return value


def counted(found: Texts, words: Words) -> Corpus:
    """Texts as counts of words, with the order that they stand in.

    Raises:
      CorpusError: no text, or no word is left by `min_df` and `max_df`.
    """
    if not found.texts:
        raise CorpusError(f"{found.source} has no document.")
    split = _splitter(words)
    tokens = [split(text) for text in found.texts]
    vocab = _vocabulary(tokens, words, found.source)
    number_of = {word: number for number, word in enumerate(vocab)}
    order = tuple(
        np.array([number_of[word] for word in doc if word in number_of], np.int64) for doc in tokens
    )
    part = Part(count_order(order), found.titles, halves_of(order), order, found.beside)
    return Corpus(found.source, tuple(vocab), {"train": part}, found.notes)


def _splitter(words: Words) -> Any:
    """text -> its words."""
    try:
        pattern = re.compile(words.token_pattern)
    except re.error as error:
        raise CorpusError(f"config.data.token_pattern is no pattern ({error}).") from None
    stop = _stop_words(words.stop_words)

    def split(text: str) -> list[str]:
        found = pattern.findall(text.lower() if words.lowercase else text)
        return [word for word in found if word not in stop]

    return split


def _stop_words(name: str) -> frozenset[str]:
    if not name:
        return frozenset()
    if name == "english":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return ENGLISH_STOP_WORDS
    path = existing(name, "the file of stop words")
    return frozenset(read_text(path).split())


def _vocabulary(tokens: list[list[str]], words: Words, source: str) -> list[str]:
    """Words in enough documents and not in too many, in the order of the alphabet."""
    docs_of: dict[str, int] = {}
    for doc in tokens:
        for word in set(doc):
            docs_of[word] = docs_of.get(word, 0) + 1
    most = words.max_df * len(tokens)
    kept = sorted(word for word, num in docs_of.items() if words.min_df <= num <= most)
    if not kept:
        largest = max(docs_of.values(), default=0)
        raise CorpusError(
            f"no word of {source} is left: {len(docs_of):,} words, the most frequent of them in "
            f"{largest:,} of {len(tokens):,} documents; config.data.min_df={words.min_df} and "
            f"max_df={words.max_df:g} leave those in {words.min_df:,} to {most:,.0f}."
        )
    return kept


def count_order(order: tuple[np.ndarray, ...]) -> Sparse:
    """Counts of the words of each document."""
    pairs = [np.unique(doc, return_counts=True) for doc in order]
    docs = np.repeat(np.arange(len(order)), [len(ids) for ids, _ in pairs])
    none = [np.zeros(0, np.int64)]
    ids = np.concatenate([*(each for each, _ in pairs), *none])
    counts = np.concatenate([*(each for _, each in pairs), *none])
    return from_triples(docs, ids, counts, len(order))


def halves_of(order: tuple[np.ndarray, ...]) -> tuple[Sparse, Sparse]:
    """The first and the second half of each text."""
    first = tuple(doc[: len(doc) // 2] for doc in order)
    second = tuple(doc[len(doc) // 2 :] for doc in order)
    return count_order(first), count_order(second)
