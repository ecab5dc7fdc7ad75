"""Topics that fits start from: a few documents each."""

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.topics.counts import Counts, Numpy, to_csr
from vi_jax.types import Array

_DOCS_PER_TOPIC = 5
_MIX = 0.5  # the share of the corpus's frequencies
_NOISE = 0.01  # relative, which keeps topics of equal documents apart


def from_documents(key: Array, counts: Counts, num_topics: int) -> Array:
    """Topics to start from, expected occurrences of each word by topic, [V, K]: for each topic a
    few documents, mixed with the corpus's own frequencies. Random topics are nearly alike, and
    fits that start there end in worse optima.
    """
    key_docs, key_noise = jax.random.split(key)
    dtype = jnp.result_type(float)
    rows = jnp.asarray(_document_rows(key_docs, counts, num_topics), dtype)
    unigram = jnp.asarray(counts.totals / counts.num_tokens, dtype)
    noise = 1.0 + _NOISE * jax.random.uniform(key_noise, rows.shape, rows.dtype)
    start = ((1.0 - _MIX) * rows + _MIX * unigram[:, None]) * noise
    return start / jnp.sum(start, 0) * (counts.num_tokens / num_topics)


def _document_rows(key: Array, counts: Counts, num_topics: int) -> Numpy:
    """Word frequencies of a few documents for each topic, [V, K]."""
    indptr, indices, data = to_csr(counts)
    full = np.flatnonzero(counts.lengths > 0)
    size = min(_DOCS_PER_TOPIC, max(1, len(full) // num_topics))
    order = np.asarray(jax.random.permutation(key, len(full)))
    chosen = np.resize(full[order[: size * num_topics]], (num_topics, size))
    rows = np.zeros((counts.num_words, num_topics), np.float32)
    for topic, docs in enumerate(chosen):
        for doc in docs:
            part = slice(indptr[doc], indptr[doc + 1])
            rows[indices[part], topic] += data[part]
    return rows / rows.sum(0)
