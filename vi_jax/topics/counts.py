"""Bags of words as segments of one width: checks of sparse counts, and the blocks that programs
visit.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

Numpy = np.ndarray[Any, Any]

WIDTHS = (4, 8, 16, 32, 64)  # distinct words of a segment
_SEGMENT_COST = 4  # of the numbers of a segment beside its cells, in cells


class Counts(NamedTuple):
    """Word counts of N documents over V words, in segments of W distinct words of one document; a
    document of many words has several, each document has at least one. NumPy arrays: a pytree
    whose sizes are in its shapes.
    """

    ids: Numpy  # words of each segment, [S, W] int32; unused cells are word 0
    counts: Numpy  # how often each occurs, [S, W] float32; unused cells are 0
    doc: Numpy  # document of each segment, ascending, [S] int32
    lengths: Numpy  # tokens of each document, [N] int64
    totals: Numpy  # occurrences of each word, [V] int64

    @property
    def num_docs(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def num_words(self) -> int:
        """V, the size of the vocabulary."""
        return len(self.totals)

    @property
    def num_tokens(self) -> int:
        """Occurrences of words in all documents."""
        return int(self.lengths.sum())

    @property
    def num_cells(self) -> int:
        """Pairs of a document and a word that occurs in it."""
        return int(np.count_nonzero(self.counts))


def from_csr(
    indptr: Any, indices: Any, data: Any, *, num_words: int, width: int | None = None
) -> Counts:
    """Counts of compressed sparse rows, one row a document, checked.

    Args:
      indptr: where each document begins in the other two, and the end, [N + 1].
      indices: words, 0 to num_words - 1, in any order, [nnz].
      data: how often each occurs, whole numbers of at least 1 (0 is dropped), [nnz].
      num_words: V.
      width: distinct words of a segment; the one of 4 to 64 that leaves the least unused if not
        given.

    Returns:
      Counts. A word that is listed twice in a document is counted once, by the sum, with a warning
      that says how many were.

    Raises:
      TypeError: an array of objects, of text or of another kind that is no number.
      ValueError: counts that are negative, nan or not whole; words out of range; pieces that do not
        fit together; no document.
    """
    indptr = _whole(indptr, "indptr")
    indices = _whole(indices, "indices")
    data = _whole(data, "counts")
    _check_pieces(indptr, indices, data, num_words)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    indptr, indices, data = _canonical(rows, indices, data, len(indptr) - 1, num_words)
    lengths = np.add.reduceat(np.append(data, 0), np.minimum(indptr[:-1], len(data)))
    lengths = np.where(np.diff(indptr) > 0, lengths, 0)
    totals = np.bincount(indices, weights=data, minlength=num_words).astype(np.int64)
    width = _best_width(np.diff(indptr)) if width is None else width
    return _segments(indptr, indices, data, lengths, totals, width)


def from_scipy(matrix: Any, *, width: int | None = None) -> Counts:
    """Counts of a SciPy sparse matrix or array of documents by words, [N, V]: see `from_csr`.

    Raises:
      TypeError: it is no sparse matrix.
      ValueError: as `from_csr`.
    """
    if not hasattr(matrix, "tocsr"):
        raise TypeError(
            f"from_scipy expects a sparse matrix of documents by words; got {type(matrix).__name__}"
            ". Wrap a dense one by scipy.sparse.csr_array."
        )
    # a coordinate matrix would add up repeated entries without a word
    rows = matrix.tocsr()
    return from_csr(
        rows.indptr, rows.indices, rows.data, num_words=int(matrix.shape[1]), width=width
    )


def to_csr(counts: Counts) -> tuple[Numpy, Numpy, Numpy]:
    """indptr [N + 1], indices [nnz] and data [nnz] of the documents, words ascending."""
    used = counts.counts > 0
    rows = np.repeat(counts.doc, used.sum(1))
    sizes = np.bincount(rows, minlength=counts.num_docs)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return indptr, counts.ids[used], counts.counts[used].astype(np.int64)


def as_rows(counts: Counts, *, length: int | None = None) -> dict[str, Numpy]:
    """Documents as rows of one length, {"ids": int32 [N, L], "counts": float32 [N, L]}, as
    `vi.models.documents` and `conjugate.lda` take them; unused places are word 0, 0 times.

    Args:
      length: L, at least the distinct words of the longest document, which it is if not given.

    Raises:
      ValueError: a document has more distinct words.
    """
    indptr, indices, data = to_csr(counts)
    sizes = np.diff(indptr)
    most = max(1, int(sizes.max()))
    length = most if length is None else length
    if length < most:
        raise ValueError(f"a document has {most:,} distinct words; got length={length:,}.")
    doc = np.repeat(np.arange(counts.num_docs), sizes)
    place = np.arange(len(indices)) - np.repeat(indptr[:-1], sizes)
    ids = np.zeros((counts.num_docs, length), np.int32)
    values = np.zeros((counts.num_docs, length), np.float32)
    ids[doc, place] = indices
    values[doc, place] = data
    return {"ids": ids, "counts": values}


def take(counts: Counts, docs: Any) -> Counts:
    """The counts of some documents, in the order of `docs`, an array of indices or of bool."""
    indptr, indices, data = to_csr(counts)
    docs = np.arange(counts.num_docs)[np.asarray(docs)]
    cells = _ranges(indptr[docs], indptr[docs + 1])
    start = np.concatenate([[0], np.cumsum(indptr[docs + 1] - indptr[docs])])
    return from_csr(
        start,
        indices[cells],
        data[cells],
        num_words=counts.num_words,
        width=counts.ids.shape[1],
    )


def _ranges(begin: Numpy, end: Numpy) -> Numpy:
    """The concatenation of begin[i], ..., end[i] - 1."""
    sizes = end - begin
    shift = np.repeat(begin - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    return np.arange(int(sizes.sum())) + shift


def _whole(values: Any, name: str) -> Numpy:
    """An array [n] of int64 of whole numbers."""
    values = np.asarray(values)
    if values.dtype.kind not in "uifb":
        raise TypeError(
            f"{name} have to be numbers; got an array of {values.dtype}. Arrays of objects are "
            "not read."
        )
    if values.ndim != 1:
        raise ValueError(f"{name} have to be of one axis; got shape {values.shape}.")
    if values.dtype.kind == "f":
        if not np.all(np.isfinite(values)):
            bad = int(np.sum(~np.isfinite(values)))
            raise ValueError(f"{name} have to be finite; {bad:,} of {len(values):,} are not.")
        broken = values != np.floor(values)
        if broken.any():
            raise ValueError(
                f"{name} have to be whole numbers; got {values[broken][0]:.6g} (and "
                f"{int(broken.sum()) - 1:,} more that are not). Weights such as tf-idf are no "
                "counts; give the counts."
            )
    return values.astype(np.int64)


def _check_pieces(indptr: Numpy, indices: Numpy, data: Numpy, num_words: int) -> None:
    if num_words < 1:
        raise ValueError(f"num_words has to be at least 1; got {num_words}.")
    if len(indptr) < 2:
        raise ValueError(f"there has to be a document; indptr has {len(indptr)} entries.")
    if len(indices) != len(data):
        raise ValueError(
            f"each word needs its count; got {len(indices):,} indices and {len(data):,} counts."
        )
    if indptr[0] != 0 or indptr[-1] != len(data) or np.any(np.diff(indptr) < 0):
        raise ValueError(
            f"indptr has to rise from 0 to the {len(data):,} counts; it goes from {indptr[0]} to "
            f"{indptr[-1]:,}{' and falls between' * bool(np.any(np.diff(indptr) < 0))}."
        )
    _check_values(indices, data, num_words)


def _check_values(indices: Numpy, data: Numpy, num_words: int) -> None:
    if len(data) and data.min() < 0:
        raise ValueError(
            f"counts cannot be negative; got {data.min()} ({int((data < 0).sum()):,} are)."
        )
    if len(indices) and (indices.min() < 0 or indices.max() >= num_words):
        hint = ""
        if indices.min() == 1 and indices.max() == num_words:
            hint = " They seem to count from 1: subtract 1."
        raise ValueError(
            f"words have to be 0 to {num_words - 1:,}; got {indices.min():,} to "
            f"{indices.max():,}.{hint}"
        )


def _canonical(
    rows: Numpy, indices: Numpy, data: Numpy, num_docs: int, num_words: int
) -> tuple[Numpy, Numpy, Numpy]:
    """Words ascending in each document, once each, none of count 0."""
    used = data > 0
    cells = rows[used] * num_words + indices[used]
    data = data[used]
    if np.any(np.diff(cells) <= 0):
        order = np.argsort(cells, kind="stable")
        cells = cells[order]
        data = data[order]
        first = np.concatenate([[True], np.diff(cells) > 0])
        repeated = int(np.sum(~first))
        if repeated:
            data = np.add.reduceat(data, np.flatnonzero(first))
            cells = cells[first]
            warnings.warn(
                f"{repeated:,} words were listed again in the same document; their counts were "
                "added up.",
                stacklevel=3,
            )
    sizes = np.bincount(cells // num_words, minlength=num_docs)
    return np.concatenate([[0], np.cumsum(sizes)]), cells % num_words, data


def _best_width(sizes: Numpy) -> int:
    """The width that leaves the fewest unused cells, the overhead of a segment included."""

    def cost(width: int) -> int:
        return int(np.maximum(-(-sizes // width), 1).sum()) * (width + _SEGMENT_COST)

    return min(WIDTHS, key=cost)


def _segments(
    indptr: Numpy, indices: Numpy, data: Numpy, lengths: Numpy, totals: Numpy, width: int
) -> Counts:
    sizes = np.diff(indptr)
    pieces = np.maximum(-(-sizes // width), 1)
    first = np.concatenate([[0], np.cumsum(pieces)])
    position = np.arange(len(indices)) - np.repeat(indptr[:-1], sizes)
    segment = np.repeat(first[:-1], sizes) + position // width
    ids = np.zeros((first[-1], width), np.int32)
    counts = np.zeros((first[-1], width), np.float32)
    ids[segment, position % width] = indices
    counts[segment, position % width] = data
    doc = np.repeat(np.arange(len(sizes), dtype=np.int32), pieces)
    return Counts(ids, counts, doc, lengths.astype(np.int64), totals)
