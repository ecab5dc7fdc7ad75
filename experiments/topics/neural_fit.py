"""A trained neural topic model as what a topic model leaves: topics, shares, weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments.evals.base import batches
from vi_jax.losses import densities_of

BATCH = 256
NUM_SAMPLES = 64  # of a document's latents, whose shares are averaged


@dataclass(frozen=True)
class NeuralFit:
    """A trained model of documents and its readers, as `vi.topics.LDA` has them."""

    model: vi.Model
    params: Any
    key: jax.Array  # of the samples of shares
    method: str
    topics_mean: np.ndarray  # [K, V]
    train: vi.topics.Counts
    train_shares: np.ndarray  # [N, K]
    seconds: float

    # of fits that are started several times
    starts: tuple[float, ...] = ()

    @property
    def num_topics(self) -> int:
        """K."""
        return len(self.topics_mean)

    @property
    def num_words(self) -> int:
        """V."""
        return self.train.num_words

    @property
    def num_docs(self) -> int:
        """N."""
        return self.train.num_docs

    @property
    def num_tokens(self) -> int:
        """Of all training documents."""
        return self.train.num_tokens

    @property
    def weights(self) -> np.ndarray:
        """Expected tokens of each topic, [K]."""
        return np.asarray(self.train.lengths @ self.train_shares)

    @property
    def alpha(self) -> np.ndarray:
        """The mean share of each topic, [K], in the place of a Dirichlet's alpha."""
        return np.asarray(self.train_shares.mean(0))

    @property
    def unused(self) -> list[int]:
        """Topics that no token is expected in."""
        return np.flatnonzero(self.weights < vi.topics.USED_TOKENS).tolist()

    @property
    def twins(self) -> list[tuple[int, int]]:
        """Pairs of topics that say the same."""
        return vi.topics.twins(self.topics_mean)

    def top_words(self, vocab: Sequence[str], num_words: int = 10) -> list[list[str]]:
        """The most probable words of each topic."""
        top = vi.topics.top_words(self.topics_mean, num_words)
        return [[str(vocab[word]) for word in row] for row in top]

    def shares(self, counts: vi.topics.Counts) -> np.ndarray:
        """E[theta] of each document by the encoder, [N, K]; of a model with covariates the
        training documents' alone.
        """
        if counts is self.train:
            return self.train_shares
        return encoded_shares(self.key, self.model, self.params, vi.topics.as_rows(counts))


def make_fit(
    key: jax.Array,
    model: vi.Model,
    params: Any,
    train: vi.topics.Counts,
    rows: dict[str, Any],
    config: Any,
) -> NeuralFit:
    """The fit of trained parameters; `rows` are the training documents as the model takes them."""
    num_topics = config.model["num_latents"]
    topics = vi.models.documents.topics(model, params, num_topics)
    shares = encoded_shares(key, model, params, rows)
    name = config.model["name"]
    return NeuralFit(model, params, key, name, np.asarray(topics), train, shares, 0.0)


def encoded_shares(
    key: jax.Array, model: vi.Model, params: Any, rows: dict[str, Any]
) -> np.ndarray:
    """The mean of a document's shares over samples of its guide, [N, K]."""
    guide = densities_of(model, "shares").guide

    @jax.jit
    def program(keys: jax.Array, params: Any, rows: Any) -> jax.Array:
        def one(key: jax.Array, x: Any) -> jax.Array:
            z = guide(params, x).sample(key, (NUM_SAMPLES,))
            shares = jax.vmap(vi.models.documents.shares, (None, 0))(params, z)
            return jnp.mean(shares, 0)

        return jax.vmap(one)(keys, rows)

    num_docs = len(rows["ids"])
    keys = jax.random.split(key, num_docs)
    parts = []
    for some, counted in batches(num_docs, BATCH):
        part = jax.tree.map(lambda leaf, some=some: jnp.asarray(leaf[some]), rows)
        parts.append(np.asarray(program(keys[some], params, part))[counted])
    return np.concatenate(parts)
