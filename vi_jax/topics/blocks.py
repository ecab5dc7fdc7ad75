"""Blocks of documents, all of one shape: what one step of a fit visits."""

from typing import Any, NamedTuple

import numpy as np

from vi_jax.topics.counts import Counts, Numpy

CACHED_BYTES = 3_000_000  # of the numbers that inner iterations read again
_POSTINGS = (4, 8, 16, 32, 64)  # cells of one word that are summed at once


class Blocks(NamedTuple):
    """Documents in B blocks of S segments, D documents and U words; every leaf [B, ...].

    `cell` is the transpose: the cells of each word in order, P at a time, so that sums over
    documents have a fixed order and need no scattered additions (deterministic on every device).
    """

    words: Numpy  # the words of the block, ascending, [U] int32; V where there are fewer
    ids: Numpy  # of each segment, positions in `words`, [S, W] int32
    counts: Numpy  # [S, W] float32
    doc: Numpy  # of each segment, positions in `docs`, ascending, [S] int32
    docs: Numpy  # the documents of the block, [D] int32; N where there are fewer
    lengths: Numpy  # tokens of each document, [D] float32
    cell: Numpy  # cells of one word, positions in the flat [S W], [T, P] int32; S W: none
    cell_doc: Numpy  # their documents, [T, P] int32
    cell_word: Numpy  # the word of each row of `cell`, ascending, [T] int32; U: none

    @property
    def num_blocks(self) -> int:
        """B."""
        return self.words.shape[0]


class Sizes(NamedTuple):
    """The shape of a block."""

    segments: int  # S
    docs: int  # D
    words: int  # U
    rows: int  # T
    postings: int  # P


def make_blocks(
    counts: Counts,
    *,
    num_topics: int,
    num_segments: int | None = None,
    least: int = 1,
    parts_of: tuple[int, int] = (1, 1),
) -> Blocks:
    """All documents in blocks, in their order, none of them cut.

    Args:
      counts: the documents.
      num_topics: K, which the default size depends on.
      num_segments: S; by default what fits the cache of a processor.
      least: blocks to make if the documents suffice: more blocks are more steps a sweep.
      parts_of: what divides the numbers of segments, documents and rows of the transpose of a
        block, and that of its words: devices.
    """
    width = counts.ids.shape[1]
    if num_segments is None:
        num_segments = max(64, CACHED_BYTES // (4 * width * num_topics))
    num_blocks = max(-(-len(counts.doc) // num_segments), min(least, counts.num_docs))
    pieces = np.bincount(counts.doc, minlength=counts.num_docs)
    bounds = _partition(pieces, num_blocks)
    first = np.concatenate([[0], np.cumsum(pieces)])
    parts = [(int(first[a]), int(first[b]), a, b) for a, b in bounds]
    flat = [_transposed(counts, part[0], part[1]) for part in parts]
    sizes = Sizes(
        max(part[1] - part[0] for part in parts),
        max(part[3] - part[2] for part in parts),
        max(len(words) for words, _, _ in flat),
        0,
        _best_postings([starts for _, _, starts in flat]),
    )
    rows = max(int(np.sum(-(-np.diff(starts) // sizes.postings))) for _, _, starts in flat)
    sizes = _divided(sizes._replace(rows=max(rows, 1)), *parts_of)
    made = [_block(counts, part, each, sizes) for part, each in zip(parts, flat, strict=True)]
    return Blocks(*[np.stack(leaves) for leaves in zip(*made, strict=True)])


def make_batch(counts: Counts) -> Blocks:
    """One block of all documents, without the axis of blocks, of sizes rounded up by an eighth at
    most: batches of a stream have few shapes, each a function of the batch alone.
    """
    flat = _transposed(counts, 0, len(counts.doc))
    starts = flat[2]
    postings = _POSTINGS[1]
    rows = int(np.sum(-(-np.diff(starts) // postings)))
    sizes = Sizes(
        _rounded(len(counts.doc)),
        _rounded(counts.num_docs),
        _rounded(len(flat[0])),
        _rounded(rows),
        postings,
    )
    part = (0, len(counts.doc), 0, counts.num_docs)
    return Blocks(*_block(counts, part, flat, sizes))


def _rounded(size: int) -> int:
    """The least multiple of an eighth of a power of two that is not below, at least 8."""
    unit = max(1, 2 ** (max(size, 8).bit_length() - 4))
    return -(-max(size, 8) // unit) * unit


def _divided(sizes: Sizes, over_docs: int, over_words: int) -> Sizes:
    """Sizes rounded up."""

    def up(size: int, parts: int) -> int:
        return -(-size // parts) * parts

    return sizes._replace(
        segments=up(sizes.segments, over_docs),
        docs=up(sizes.docs, over_docs),
        words=up(sizes.words, over_words),
        rows=up(sizes.rows, over_docs),
    )


def _partition(pieces: Numpy, num_blocks: int) -> list[tuple[int, int]]:
    """Ranges of documents of about equally many segments."""
    starts = np.cumsum(pieces) - pieces
    block = starts * num_blocks // int(pieces.sum())
    begins = np.flatnonzero(np.diff(block, prepend=-1))
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(pieces)], strict=True))


def _transposed(counts: Counts, first: int, last: int) -> tuple[Numpy, Numpy, Numpy]:
    """The words of a block [u], the used cells by word and then by document, and where each word
    begins among these [u + 1].
    """
    cells = np.flatnonzero(counts.counts[first:last])
    ids = counts.ids[first:last].ravel()[cells]
    order = np.argsort(ids, kind="stable")
    words, starts = np.unique(ids[order], return_index=True)
    return words, cells[order], np.append(starts, len(cells))


def _best_postings(starts: list[Numpy]) -> int:
    def cost(size: int) -> int:
        return sum(int(np.sum(-(-np.diff(each) // size))) for each in starts) * (size + 2)

    return min(_POSTINGS, key=cost)


def _block(
    counts: Counts, part: tuple[int, int, int, int], flat: tuple[Numpy, Numpy, Numpy], sizes: Sizes
) -> tuple[Any, ...]:
    first, last, begin, end = part
    words, cells, starts = flat
    width = counts.ids.shape[1]
    # 1. documents and their segments; what is left over is a document without words
    ids = np.zeros((sizes.segments, width), np.int32)
    ids[: last - first] = np.searchsorted(words, counts.ids[first:last])
    values = np.zeros((sizes.segments, width), np.float32)
    values[: last - first] = counts.counts[first:last]
    ids[values == 0] = 0
    doc = np.full(sizes.segments, sizes.docs - 1, np.int32)
    doc[: last - first] = counts.doc[first:last] - begin
    docs = np.full(sizes.docs, counts.num_docs, np.int32)
    docs[: end - begin] = np.arange(begin, end)
    lengths = np.zeros(sizes.docs, np.float32)
    lengths[: end - begin] = counts.lengths[begin:end]
    # 2. the transpose, in rows of P cells
    rows = -(-np.diff(starts) // sizes.postings)
    row_first = np.concatenate([[0], np.cumsum(rows)])
    position = np.arange(len(cells)) - np.repeat(starts[:-1], np.diff(starts))
    row = np.repeat(row_first[:-1], np.diff(starts)) + position // sizes.postings
    cell = np.full((sizes.rows, sizes.postings), sizes.segments * width, np.int32)
    cell[row, position % sizes.postings] = cells
    cell_doc = np.zeros((sizes.rows, sizes.postings), np.int32)
    cell_doc[row, position % sizes.postings] = doc[cells // width]
    cell_word = np.full(sizes.rows, sizes.words, np.int32)
    cell_word[: row_first[-1]] = np.repeat(np.arange(len(words)), rows)
    padded = np.full(sizes.words, counts.num_words, np.int32)
    padded[: len(words)] = words
    return padded, ids, values, doc, docs, lengths, cell, cell_doc, cell_word
