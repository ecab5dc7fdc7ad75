"""A fitted latent Dirichlet allocation and its readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.topics.blocks import make_blocks
from vi_jax.topics.coherence import top_words, twins
from vi_jax.topics.counts import Counts, Numpy
from vi_jax.topics.local import CVB0, PARTLY, VB, Rule, shares_of_blocks
from vi_jax.types import Array

USED_TOKENS = 1.0  # expected, of a topic that is used


def rule_of(method: str) -> Rule:
    """The rule of a method by its name."""
    return {"cvb0": CVB0, "partly": PARTLY}.get(method, VB)


class Readers:
    """What a fitted topic model says of itself: read from `topics`, `topics_mean`, `weights`,
    `history` and `num_tokens`.
    """

    topics: Array
    weights: Array
    history: Numpy
    num_tokens: int

    @property
    def topics_mean(self) -> Array:
        """E[beta], [K, V]; rows sum to 1."""
        raise NotImplementedError

    @property
    def num_topics(self) -> int:
        """K."""
        return int(self.topics.shape[0])

    @property
    def num_words(self) -> int:
        """V."""
        return int(self.topics.shape[1])

    @property
    def elbo(self) -> float:
        """Nats, of the whole corpus: a lower bound of log p(words), or of log p(words | topics) by
        "partly"; nan by "cvb0", which has none.
        """
        last = self.history[-1] if len(self.history) else np.nan
        return float(last) * self.num_tokens

    @property
    def unused(self) -> list[int]:
        """Topics that no token is expected in."""
        return np.flatnonzero(np.asarray(self.weights) < USED_TOKENS).tolist()

    @property
    def twins(self) -> list[tuple[int, int]]:
        """Pairs of topics that say the same: see `coherence.twins`."""
        return twins(self.topics_mean)

    def top_words(self, vocab: Sequence[str] | None = None, num_words: int = 10) -> list[list[Any]]:
        """The most probable words of each topic, K lists; indices without a vocabulary.

        Raises:
          ValueError: a vocabulary of another length.
        """
        top = top_words(self.topics_mean, num_words)
        if vocab is None:
            return top.tolist()
        if len(vocab) != self.num_words:
            raise ValueError(
                f"the vocabulary has {len(vocab):,} words, the topics {self.num_words:,}."
            )
        return [[str(vocab[word]) for word in row] for row in top]

    def _require_vocabulary(self, counts: Counts) -> None:
        """Raises ValueError for documents over another vocabulary."""
        if counts.num_words != self.num_words:
            raise ValueError(
                f"the documents are of {counts.num_words:,} words, the topics of "
                f"{self.num_words:,}: map them by word first."
            )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("topics", "alpha", "eta", "weights", "history", "perplexity", "starts", "found"),
    meta_fields=("method", "num_tokens", "num_docs", "converged", "seconds"),
)
@dataclass(frozen=True)
class LDA(Readers):
    """A fitted latent Dirichlet allocation; a pytree."""

    topics: Array  # q(beta_k) = Dirichlet(topics[k]), [K, V]
    alpha: Array  # prior of shares, [K]
    eta: Array  # prior of topics, [V]
    weights: Array  # expected tokens of each topic, [K]
    history: Numpy  # the bound `elbo` after each sweep, nats a token, [sweeps]; nan for CVB0
    perplexity: Numpy  # completion on `valid` by tokens after each sweep, nan where not measured
    starts: Numpy  # the criterion of each start, nats a token, [R]; the best was kept
    found: Numpy  # share of the starts that have the topic too, [K]
    method: str
    num_tokens: int
    num_docs: int
    converged: bool
    seconds: float

    @property
    def topics_mean(self) -> Array:
        """E[beta], [K, V]; rows sum to 1."""
        return self.topics / jnp.sum(self.topics, 1, keepdims=True)

    def shares(self, counts: Counts) -> Numpy:
        """E[theta] of each document given the topics' means, [N, K]; the prior's mean for an empty
        one. By the collapsed fixed point (`local.CVB0`) whatever the method: it predicts held-out
        words better than the mean field's own shares, which are pushed to few topics.

        Raises:
          ValueError: another vocabulary.
        """
        self._require_vocabulary(counts)
        return shares_of(counts, self.topics_mean, self.alpha)

    def __str__(self) -> str:
        lines = [
            f"LDA by {self.method}: {self.num_topics} topics of {self.num_words:,} words, "
            f"{self.num_docs:,} documents, {self.num_tokens:,} tokens, {len(self.history)} sweeps, "
            f"{self.seconds:.1f} s"
        ]
        if np.isfinite(self.elbo):
            lines.append(f"ELBO {self.elbo / self.num_tokens:.4f} nats a token")
        if np.isfinite(np.asarray(self.perplexity)).any():
            measured = np.asarray(self.perplexity)
            last = measured[np.isfinite(measured)][-1]
            lines.append(f"completion perplexity {last:,.1f} by tokens, of the documents in valid")
        used = self.num_topics - len(self.unused)
        lines.append(
            f"topics used {used} of {self.num_topics}, twins {len(self.twins)}, sum of alpha "
            f"{float(jnp.sum(self.alpha)):.3g}"
        )
        if len(self.starts) > 1:
            stable = int(np.sum(np.asarray(self.found) > 0.5))
            lines.append(f"{stable} topics are in most of the {len(self.starts)} starts")
        if not self.converged:
            lines.append("not converged: give it more sweeps")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def shares_of(counts: Counts, topics_mean: Any, alpha: Any) -> Numpy:
    """E[theta] of each document, [N, K], by the collapsed fixed point at topics' means [K, V] and
    alpha [K], of any topic model.
    """
    topics = jnp.asarray(topics_mean, jnp.result_type(float)).T
    alpha = jnp.asarray(alpha, topics.dtype)
    blocks = make_blocks(counts, num_topics=len(alpha))
    gamma = shares_of_blocks(CVB0, blocks, topics, alpha)
    return _by_document(blocks.docs, gamma, counts.num_docs)


def _by_document(docs: Any, gamma: Array, num_docs: int) -> Numpy:
    """Shares [N, K] of gamma [B, D, K]."""
    values = np.asarray(gamma)
    found = np.zeros((num_docs + 1, values.shape[-1]), values.dtype)
    found[np.asarray(docs).ravel()] = values.reshape(-1, values.shape[-1])
    return found[:-1] / found[:-1].sum(1, keepdims=True)
