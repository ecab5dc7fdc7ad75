"""What every reader of documents gives: words, and counts or sequences of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vi_jax import files

MAX_FILE_MB = 4096


class CorpusError(Exception):
    """What is wrong with documents, in a sentence."""


class Sparse(NamedTuple):
    """Counts of words by document, compressed rows."""

    indptr: np.ndarray  # [N + 1]
    indices: np.ndarray  # of words, [cells]
    data: np.ndarray  # counts, [cells]

    @property
    def num_docs(self) -> int:
        """N."""
        return len(self.indptr) - 1


class Part(NamedTuple):
    """The documents of a split."""

    counts: Sparse
    titles: tuple[str, ...] = ()  # of the documents, or none
    # both halves of each document, in the order of its text or as the data set has them
    halves: tuple[Sparse, Sparse] | None = None
    order: tuple[np.ndarray, ...] | None = None  # words of each document as they come in its text
    # what is known of documents beside their words, by name: texts or numbers, [N]; "" or nan where
    # it is missing
    beside: Mapping[str, np.ndarray] | None = None


class Corpus(NamedTuple):
    """Documents as they were read."""

    source: str  # where they are
    vocab: tuple[str, ...]
    parts: dict[str, Part]  # "train", and "valid" and "test" where the data set has them
    notes: tuple[str, ...] = ()  # what was done to them


def existing(text: str, what: str) -> Path:
    """The path of a file or folder that is there.

    Raises:
      CorpusError: it is not.
    """
    path = Path(text).expanduser()
    if not text or not path.exists():
        raise CorpusError(f"{what} {text or '(none given)'} does not exist.")
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of the system and of encodings, while a file is read, as a CorpusError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte {error.start:,} is 0x{error.object[error.start]:02x}; "
            "convert it, as by `iconv -f latin1 -t utf-8`."
        ) from None
    except (OSError, EOFError) as error:
        raise CorpusError(f"{path} cannot be read ({error}).") from None


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte-order mark; unpacked where its name ends in .gz.

    Raises:
      CorpusError: it cannot be read, is larger than MAX_FILE_MB, or is not UTF-8.
    """
    import gzip

    with reading(path):
        size = path.stat().st_size / 2**20
        if size > MAX_FILE_MB:
            raise CorpusError(
                f"{path} has {size:,.0f} MB, and a file of text at most {MAX_FILE_MB:,}: split it."
            )
        content = files.read_bytes(path, follow=True)
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")


def read_vocab(text: str) -> tuple[str, ...]:
    """Words of a file with one in each line.

    Raises:
      CorpusError: there is no such file, or it has no word.
    """
    path = existing(text, "the vocabulary")
    words = tuple(line.strip() for line in read_text(path).splitlines())
    while words and not words[-1]:
        words = words[:-1]
    if not words:
        raise CorpusError(f"the vocabulary {path} is empty.")
    return words


def named_vocab(words: tuple[str, ...] | None, size: int, what: str) -> tuple[str, ...]:
    """The vocabulary, or word0, word1, ... where there is none.

    Raises:
      CorpusError: it has another length than the counts have words.
    """
    if words is None:
        return tuple(f"word{number}" for number in range(size))
    if len(words) != size:
        raise CorpusError(
            f"{what} has {size:,} words, and its vocabulary has {len(words):,}: give the "
            "vocabulary that the counts were made with."
        )
    return words


def as_values(found: list[Any]) -> np.ndarray:
    """Labels or numbers as they were read, [N]: float64 where each is a number or missing, else
    texts.
    """
    texts = ["" if value is None else str(value).strip() for value in found]
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts)


def from_triples(docs: Any, words: Any, counts: Any, num_docs: int) -> Sparse:
    """Counts of (document, word, count), in the order of the documents."""
    docs = np.asarray(docs, np.int64)
    order = np.argsort(docs, kind="stable")
    sizes = np.bincount(docs, minlength=num_docs)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return Sparse(indptr, np.asarray(words)[order], np.asarray(counts)[order])


def take(part: Sparse, rows: np.ndarray) -> Sparse:
    """Some documents, in that order."""
    sizes = np.diff(part.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    starts = part.indptr[rows]
    cells = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - starts, sizes)
    return Sparse(indptr, part.indices[cells], part.data[cells])
