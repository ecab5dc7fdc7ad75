"""Documents made by a fitted topic model, and whether the shares found of them are as sure as they
say.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import beta

from vi_jax.arguments import as_count, as_key
from vi_jax.topics.counts import Counts, Numpy, from_csr
from vi_jax.topics.evidence import dirichlets
from vi_jax.types import Array

LENGTHS = (5, 20, 80, 320)  # tokens
LEVELS = (0.5, 0.9)  # of intervals


class Simulated(NamedTuple):
    """Documents whose shares and assignments are known."""

    counts: Counts
    shares: Numpy  # [N, K]
    tokens: Numpy  # words, -1 where a document has ended, [N, L] int32
    assignments: Numpy  # topics of the tokens, likewise


def simulate(key: Array, fit: Any, lengths: Any) -> Simulated:
    """Documents of some lengths [N] from the topics' means and alpha of a fit.

    Raises:
      ValueError: a length is not at least 1.
    """
    lengths = np.asarray(lengths)
    as_count(int(lengths.min()), "lengths", what="tokens")
    key_shares, key_topics, key_words = jax.random.split(as_key(key, "simulate"), 3)
    shares = jax.random.dirichlet(key_shares, fit.alpha, (len(lengths),))
    size = (len(lengths), int(lengths.max()))
    cumulative = jnp.cumsum(shares, -1)[:, None, :]
    topics = _invert(cumulative, jax.random.uniform(key_topics, size))
    by_topic = jnp.cumsum(fit.topics_mean, -1)
    levels = jax.random.uniform(key_words, size)
    words = np.stack([_words(by_topic, *row) for row in zip(topics, levels, strict=True)])
    used = np.arange(size[1]) < lengths[:, None]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    counts = _counted(indptr, words[used], fit.num_words)
    tokens = np.where(used, words, -1).astype(np.int32)
    assignments = np.where(used, np.asarray(topics), -1).astype(np.int32)
    return Simulated(counts, np.asarray(shares), tokens, assignments)


def _invert(cumulative: Array, levels: Array) -> Array:
    """Where the levels [...] lie among cumulative probabilities [..., K]."""
    last = cumulative[..., -1]
    below = jnp.sum(cumulative < (levels * last)[..., None], -1)
    return jnp.minimum(below, cumulative.shape[-1] - 1)


def _words(by_topic: Array, topics: Array, levels: Array) -> Numpy:
    return np.asarray(_invert(by_topic[topics], levels))


def _counted(indptr: Numpy, words: Numpy, num_words: int) -> Counts:
    """Counts of tokens, repeated words added up."""
    docs = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    cells, data = np.unique(docs * num_words + words, return_counts=True)
    sizes = np.bincount(cells // num_words, minlength=len(indptr) - 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return from_csr(starts, cells % num_words, data, num_words=num_words)


class Calibration(NamedTuple):
    """Of documents of one length, simulated from a fit."""

    length: int  # tokens
    level: Numpy  # of central intervals of a document's leading share, [I]
    coverage: Numpy  # how often they hold the true share, [I]
    stderr: Numpy  # [I]
    error: float  # mean absolute error of that share


def calibration(
    key: Array, fit: Any, *, lengths: tuple[int, ...] = LENGTHS, num_docs: int = 500
) -> list[Calibration]:
    """Whether the shares Dirichlet(gamma) of documents are as sure as they say, by the length of
    the documents: how often central intervals of the share of a document's leading topic hold the
    true one, of documents simulated from the fit.

    Args:
      key: of the documents.
      fit: a fitted topic model.
      lengths: tokens of the documents.
      num_docs: of each length.
    """
    keys = jax.random.split(as_key(key, "calibration"), len(lengths))
    level = np.array(LEVELS)
    found = []
    for each, length in zip(keys, lengths, strict=True):
        made = simulate(each, fit, np.full(num_docs, length))
        gamma = dirichlets(fit, made.counts).astype(np.float64)
        rows = np.arange(num_docs)
        leading = gamma.argmax(1)
        own = gamma[rows, leading]
        true = made.shares[rows, leading]
        place = beta.cdf(true, own, gamma.sum(1) - own)
        coverage = np.mean(np.abs(place[:, None] - 0.5) < 0.5 * level, 0)
        stderr = np.sqrt(coverage * (1.0 - coverage) / num_docs)
        error = float(np.mean(np.abs(own / gamma.sum(1) - true)))
        found.append(Calibration(length, level, coverage, stderr, error))
    return found
