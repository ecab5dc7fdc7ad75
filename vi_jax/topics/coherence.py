"""Coherence and diversity of topics, and how topics of two fits match."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from vi_jax.topics.counts import Counts, Numpy, to_csr

_TWIN = 0.1  # Hellinger distance below which two topics are twins
_EPSILON = 1e-12  # of Röder et al. (2015), in C_V


def top_words(topics_mean: Any, num_words: int = 10) -> Numpy:
    """The most probable words of each topic, [K, n], the most probable first; ties by index."""
    topics = np.asarray(topics_mean)
    if not 1 <= num_words <= topics.shape[1]:
        raise ValueError(
            f"num_words has to be 1 to the vocabulary's {topics.shape[1]:,}; got {num_words}."
        )
    return np.argsort(-topics, axis=1, kind="stable")[:, :num_words]


def npmi(topics_mean: Any, counts: Counts, *, num_words: int = 10) -> Numpy:
    """Coherence of each topic by the normalised pointwise mutual information of its top words,
    together in documents: log(p(a, b) / (p(a) p(b))) / -log p(a, b), the mean over pairs, -1 for
    words that are never together (Bouma 2009; Lau et al. 2014). Say which documents they are: the
    training ones as a rule. Give `diversity` beside it, which a coherent model can lack.

    Returns:
      [K], in [-1, 1].
    """
    top = top_words(topics_mean, num_words)
    words, position = np.unique(top, return_inverse=True)
    position = position.reshape(top.shape)
    together = _together(counts, words) / counts.num_docs
    single = np.diag(together)
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = np.log(together)
        values = (joint - np.log(single)[:, None] - np.log(single)) / -joint
    values = np.where(together > 0, np.where(joint == 0, 1.0, values), -1.0)
    pairs = np.triu_indices(num_words, 1)
    return np.array([values[np.ix_(row, row)][pairs].mean() for row in position])


def _together(counts: Counts, words: Numpy) -> Numpy:
    """In how many documents two of the words occur, [w, w]; the diagonal is of each one."""
    indptr, indices, _ = to_csr(counts)
    position = np.full(counts.num_words, -1)
    position[words] = np.arange(len(words))
    rows = np.repeat(np.arange(counts.num_docs), np.diff(indptr))
    columns = position[indices]
    kept = columns >= 0
    occurs = csr_array(
        (np.ones(kept.sum()), (rows[kept], columns[kept])), shape=(counts.num_docs, len(words))
    )
    return np.asarray((occurs.T @ occurs).todense())


def diversity(topics_mean: Any, *, num_words: int = 25) -> float:
    """The share of distinct words among the top words of all topics (Dieng et al. 2020)."""
    top = top_words(topics_mean, min(num_words, np.shape(topics_mean)[1]))
    return len(np.unique(top)) / top.size


def c_v(topics_mean: Any, texts: Sequence[Any], *, num_words: int = 10, window: int = 110) -> Numpy:
    """Coherence C_V of each topic (Röder et al. 2015): NPMI over sliding windows of tokens, words
    compared by the cosine of their vectors of NPMI with the topic's other top words.

    Args:
      topics_mean: [K, V].
      texts: the tokens of each document in their order, integers [n]; -1 for words that are not in
        the vocabulary.
      num_words: top words of a topic.
      window: tokens; a shorter text is one window.

    Returns:
      [K].
    """
    top = top_words(topics_mean, num_words)
    words, position = np.unique(top, return_inverse=True)
    position = position.reshape(top.shape)
    together, num_windows = _windows(texts, words, np.shape(topics_mean)[1], window)
    joint = together / num_windows
    single = np.diag(joint)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (joint + _EPSILON) / np.outer(single, single)
        values = np.log(ratio) / -np.log(joint + _EPSILON)
    values = np.where(np.isfinite(values), values, 0.0)
    found = []
    for row in position:
        vectors = values[np.ix_(row, row)]
        total = vectors.sum(0)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(total)
        cosines = np.divide(vectors @ total, norms, out=np.zeros(len(row)), where=norms > 0)
        found.append(cosines.mean())
    return np.array(found)


def _windows(texts: Sequence[Any], words: Numpy, num_words: int, window: int) -> tuple[Numpy, int]:
    """In how many windows two of the words occur, [w, w], and how many windows there are."""
    position = np.full(num_words + 1, -1)  # the last: not in the vocabulary
    position[words] = np.arange(len(words))
    together = np.zeros((len(words), len(words)))
    num_windows = 0
    for text in texts:
        places = position[np.asarray(text, np.int64)]
        size = max(len(places) - window + 1, 1)
        num_windows += size
        occurs = np.zeros((size, len(words)), np.float32)
        for place, word in enumerate(places):
            if word >= 0:
                occurs[max(0, place - window + 1) : min(place, size - 1) + 1, word] = 1.0
        here = np.flatnonzero(occurs.any(0))
        together[np.ix_(here, here)] += occurs[:, here].T @ occurs[:, here]
    return together, num_windows


def hellinger(a: Any, b: Any) -> Numpy:
    """Hellinger distances of distributions a [K, V] and b [L, V]: [K, L], in [0, 1]."""
    overlap = np.sqrt(np.asarray(a, np.float64)) @ np.sqrt(np.asarray(b, np.float64)).T
    return np.sqrt(np.clip(1.0 - overlap, 0.0, 1.0))


class Match(NamedTuple):
    """Topics of one fit beside those of another."""

    order: Numpy  # of each topic of the first its partner in the second, [K]
    distance: Numpy  # the Hellinger distance of the two, [K]


def match(a: Any, b: Any) -> Match:
    """The pairing of topics [K, V] and [K, V] of least total Hellinger distance (Kuhn 1955).

    Raises:
      ValueError: other shapes.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"topics to match have to be as many; got {np.shape(a)}, {np.shape(b)}.")
    distances = hellinger(a, b)
    rows, columns = linear_sum_assignment(distances)
    return Match(columns, distances[rows, columns])


def twins(topics_mean: Any, *, threshold: float = _TWIN) -> list[tuple[int, int]]:
    """Pairs of topics that say the same: nearer than `threshold` in Hellinger distance."""
    distances = hellinger(topics_mean, topics_mean)
    first, second = np.triu_indices(len(distances), 1)
    near = distances[first, second] < threshold
    return list(zip(first[near].tolist(), second[near].tolist(), strict=True))
