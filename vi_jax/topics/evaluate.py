"""Held-out perplexity of topic models by document completion."""

import math
from typing import Any, NamedTuple

import numpy as np

from vi_jax.topics.counts import Counts, Numpy, to_csr

_CHUNK = 200_000  # cells that are scored at once


class Completion(NamedTuple):
    """Perplexity of the second halves of documents given the first. `ppl_tok` weighs every token
    alike, `ppl_doc` every document; the standard errors take documents as independent.
    """

    ppl_tok: float
    ppl_doc: float
    ppl_tok_stderr: float
    ppl_doc_stderr: float
    num_tokens: int  # scored
    num_docs: int  # scored
    skipped_tokens: int  # in documents whose first half is empty
    skipped_docs: int  # with an empty half
    nll: Numpy  # of the scored tokens of each document, nats, nan where it was skipped, [N]

    def __str__(self) -> str:
        text = (
            f"completion perplexity {self.ppl_tok:,.1f} ± {self.ppl_tok_stderr:.1f} by tokens, "
            f"{self.ppl_doc:,.1f} ± {self.ppl_doc_stderr:.1f} by documents ({self.num_tokens:,} "
            f"tokens of {self.num_docs:,} documents"
        )
        if self.skipped_docs:
            text += f"; skipped {self.skipped_docs:,} documents with an empty half"
        return text + ")"

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def completion(fit: Any, h1: Counts, h2: Counts) -> Completion:
    """Perplexity of h2 by the shares of h1: exp of the mean of -log sum_k E[theta_k | h1]
    E[beta_kw], a distribution over the vocabulary and no bound.

    Args:
      fit: a fitted topic model, with `shares` and `topics_mean`.
      h1, h2: two parts of the same documents, in the same order.

    Raises:
      ValueError: other numbers of documents or of words.
    """
    return score(fit.shares(h1), fit.topics_mean, h1, h2)


def score(shares: Any, topics_mean: Any, h1: Counts, h2: Counts) -> Completion:
    """`completion` of any topic model, by its shares [N, K] of h1 and its topics [K, V].

    Raises:
      ValueError: shapes that do not fit, or topics whose rows do not sum to 1.
    """
    shares = np.asarray(shares, np.float64)
    topics = np.asarray(topics_mean, np.float64)
    _check(shares, topics, h1, h2)
    indptr, indices, data = to_csr(h2)
    rows = np.repeat(np.arange(h2.num_docs), np.diff(indptr))
    by_word = np.ascontiguousarray(topics.T)
    nll = np.zeros(h2.num_docs)
    for begin in range(0, len(rows), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        chances = np.einsum("ck,ck->c", shares[rows[part]], by_word[indices[part]])
        with np.errstate(divide="ignore"):
            cost = -data[part] * np.log(chances)
        nll += np.bincount(rows[part], weights=cost, minlength=h2.num_docs)
    return of_nll(nll, h1.lengths, h2.lengths)


def of_nll(nll: Any, first: Any, second: Any) -> Completion:
    """`completion` of any model that has probabilities of words.

    Args:
      nll: -log p of the second half's tokens given the first half, summed, nats, [N].
      first, second: tokens of the halves, [N]; documents with an empty one are skipped.
    """
    nll = np.asarray(nll, np.float64)
    first = np.asarray(first)
    second = np.asarray(second)
    scored = (first > 0) & (second > 0)
    found = _mean(nll[scored], second[scored])
    return Completion(
        *found,
        num_tokens=int(second[scored].sum()),
        num_docs=int(scored.sum()),
        skipped_tokens=int(second[~scored].sum()),
        skipped_docs=int(np.sum(~scored)),
        nll=np.where(scored, nll, np.nan),
    )


def _check(shares: Numpy, topics: Numpy, h1: Counts, h2: Counts) -> None:
    if h1.num_docs != h2.num_docs:
        raise ValueError(
            f"h1 and h2 have to be halves of the same documents; got {h1.num_docs:,} and "
            f"{h2.num_docs:,} documents."
        )
    if shares.shape != (h1.num_docs, len(topics)) or topics.shape[1] != h2.num_words:
        raise ValueError(
            f"expected shares [{h1.num_docs}, K] and topics [K, {h2.num_words}]; got "
            f"{shares.shape} and {topics.shape}."
        )
    off = np.abs(topics.sum(1) - 1.0).max()
    if not off < 1e-3:
        raise ValueError(
            f"topics have to sum to 1 over the vocabulary; one is off by {off:.3g}. Give the "
            "posterior means, not exp(E[log beta])."
        )


def _mean(nll: Numpy, lengths: Numpy) -> tuple[float, float, float, float]:
    """Both perplexities, then their standard errors by the delta method, documents as clusters."""
    num = len(nll)
    if num == 0:
        return math.nan, math.nan, math.nan, math.nan
    by_token = nll.sum() / lengths.sum()
    by_doc = float(np.mean(nll / lengths))
    ppl_tok = float(np.exp(by_token))
    ppl_doc = float(np.exp(by_doc))
    if num == 1:
        return ppl_tok, ppl_doc, math.nan, math.nan
    off = nll - by_token * lengths
    stderr_tok = np.sqrt(np.sum(off**2) * num / (num - 1)) / lengths.sum()
    stderr_doc = np.std(nll / lengths, ddof=1) / np.sqrt(num)
    return ppl_tok, ppl_doc, float(ppl_tok * stderr_tok), float(ppl_doc * stderr_doc)
