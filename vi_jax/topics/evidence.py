"""Evidence of single documents by importance sampling, and whether their shares can be read.

log p(words | alpha, topics) = log E_{theta ~ Dirichlet(alpha)} prod_w (sum_k theta_k beta_kw)^n_w:
samples from the fitted shares bound it from below and have a k-hat; `assignments` has it closer.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.diagnostics.psis import k_threshold, psis
from vi_jax.distributions import LogDirichlet
from vi_jax.topics.blocks import make_blocks
from vi_jax.topics.counts import Counts, Numpy, as_rows
from vi_jax.topics.local import PARTLY, shares_of_blocks
from vi_jax.types import Array

_CHUNK = 256  # documents of one call
_BATCH = 16  # of them at once
MAX_GAP = 0.5  # nats between the shares and their posterior, where they can be read
_FLATTER = 0.3
_READABLE = 0.9  # of the documents, that the verdict is good


class Evidence(NamedTuple):
    """log p(words) of each document given the topics' means, nats, [N]; an empty one has 0."""

    elbo: Numpy  # from below, of the shares Dirichlet(gamma) and the assignments
    iwae: Numpy  # from below and nearer, by importance samples
    gap: Numpy  # KL of the shares Dirichlet(gamma) from their posterior, an estimate
    k_hat: Numpy  # of the importance samples; below `threshold` these estimates can be trusted
    threshold: float

    @property
    def readable(self) -> Numpy:
        """Whether the shares of a document can be read, bool [N]: their posterior is known, and
        Dirichlet(gamma) is near it. k-hat alone does not see a mode that no sample has met.
        """
        return (self.k_hat < self.threshold) & (self.gap < MAX_GAP)

    @property
    def verdict(self) -> str:
        """One sentence on which shares can be read."""
        share = float(np.mean(self.readable))
        text = (
            f"the shares of {share:.0%} of {len(self.k_hat):,} documents can be read (k-hat below "
            f"{self.threshold:.2f}, within {MAX_GAP} nats of their posterior); the mean gap is "
            f"{np.mean(self.gap):.2f} nats a document"
        )
        if share >= _READABLE:
            return text
        return text + ": read the others' shares as a summary, not with their errors"


def evidence(key: Array, fit: Any, counts: Counts, *, num_samples: int = 1000) -> Evidence:
    """Bounds of log p(words | alpha, E[beta]) of each document, and k-hat of its shares.

    Args:
      key: of the samples.
      fit: a fitted topic model.
      counts: documents.
      num_samples: of each document's shares.

    Raises:
      ValueError: another vocabulary, or fewer than 25 samples.
    """
    key = as_key(key, "evidence")
    as_count(num_samples, "num_samples", least=25)
    check_words(fit, counts)
    num = counts.num_docs
    rows = _rows(fit, counts)
    size = _CHUNK if num > _CHUNK else -(-num // _BATCH) * _BATCH  # one shape, compiled once
    parts = []
    for begin in range(0, num, _CHUNK):
        which = np.minimum(np.arange(begin, begin + size), num - 1)
        part = jax.tree.map(lambda leaf, which=which: leaf[which], rows)
        keys = jax.random.split(jax.random.fold_in(key, begin), size)
        parts.append(_importance(num_samples, keys, part, fit.alpha))
    found = [np.concatenate(leaves)[:num] for leaves in zip(*parts, strict=True)]
    empty = counts.lengths == 0
    elbo = np.where(empty, 0.0, found[0])
    iwae = np.where(empty, 0.0, found[1])
    gap = np.where(empty, 0.0, found[2])
    k_hat = np.where(empty, -np.inf, found[3])
    return Evidence(elbo, iwae, gap, k_hat, k_threshold(num_samples))


class _Rows(NamedTuple):
    """Documents as rows of one length, [N, ...]."""

    topics: Array  # E[beta] at their words, [N, L, K]
    counts: Array  # [N, L]
    gamma: Array  # [N, K]


def check_words(fit: Any, counts: Counts) -> None:
    """Raises ValueError for documents of another vocabulary."""
    if counts.num_words != fit.num_words:
        raise ValueError(
            f"the documents are of {counts.num_words:,} words, the topics of {fit.num_words:,}."
        )


def _rows(fit: Any, counts: Counts) -> _Rows:
    rows = as_rows(counts)
    topics = np.asarray(fit.topics_mean).T
    gamma = dirichlets(fit, counts)
    at_words = jnp.asarray(topics[rows["ids"]])
    return _Rows(at_words, jnp.asarray(rows["counts"]), jnp.asarray(gamma))


def dirichlets(fit: Any, counts: Counts) -> Numpy:
    """gamma of each document's variational shares Dirichlet(gamma), [N, K], the topics at their
    means.
    """
    blocks = make_blocks(counts, num_topics=fit.num_topics)
    gamma = np.zeros((counts.num_docs + 1, fit.num_topics), np.float32)
    found = shares_of_blocks(PARTLY, blocks, fit.topics.T, fit.alpha)
    gamma[blocks.docs.ravel()] = np.asarray(found).reshape(-1, fit.num_topics)
    return gamma[:-1]


def _log_lik(log_theta: Array, topics: Array, counts: Array) -> Array:
    """sum_w n_w log sum_k theta_k beta_kw of one document."""
    chances = topics @ jnp.exp(log_theta)
    return jnp.sum(counts * jnp.log(jnp.where(counts > 0, chances, 1.0)))


@partial(jax.jit, static_argnums=0)
def _importance(
    num_samples: int, keys: Array, rows: _Rows, alpha: Array
) -> tuple[Array, Array, Array, Array]:
    """ELBO, IWAE, gap and k-hat of each document, [n].

    Half of the samples are of Dirichlet(gamma), the others of the prior and of one between the
    two, all weighted by the mixture: the mean field keeps to one mode, and samples of it alone
    would not tell.
    """
    prior = LogDirichlet(alpha)
    sizes = (num_samples - 2 * (num_samples // 4), num_samples // 4, num_samples // 4)

    def one(key: Array, row: _Rows) -> tuple[Array, Array, Array, Array]:
        parts = jnp.stack([row.gamma, alpha + _FLATTER * (row.gamma - alpha), alpha])
        # one sampler for the three, which is most of what there is to compile; the first is the
        # largest, and what the others have beyond their size is cut off
        keys = jax.random.split(key, len(parts))
        drawn = jax.vmap(lambda k, part: LogDirichlet(part).sample(k, sizes[:1]))(keys, parts)
        y = jnp.concatenate([own[:size] for own, size in zip(drawn, sizes, strict=True)])
        shares = jnp.log(jnp.asarray(sizes) / num_samples)
        by_guide = jax.vmap(lambda part: LogDirichlet(part).log_prob(y), out_axes=-1)(parts)
        mixture = jax.nn.logsumexp(by_guide + shares, -1)
        log_lik = jax.vmap(lambda y: _log_lik(y, row.topics, row.counts))(y)
        log_joint = log_lik + prior.log_prob(y)
        log_w = log_joint - mixture
        log_mean = jax.nn.logsumexp(log_w) - jnp.log(num_samples)
        own = (log_joint - by_guide[:, 0])[: sizes[0]]
        return _elbo(row, alpha), log_mean, log_mean - jnp.mean(own), psis(log_w).k_hat

    return jax.lax.map(lambda inputs: one(*inputs), (keys, rows), batch_size=_BATCH)


def _elbo(row: _Rows, alpha: Array) -> Array:
    """sum_w n_w log sum_k exp(E[log theta_k]) beta_kw - KL(q(theta), p(theta)) of one document."""
    q = LogDirichlet(row.gamma)
    prior = LogDirichlet(alpha)
    kl = q.log_prob(q.mean) - prior.log_prob(q.mean)
    return _log_lik(q.mean, row.topics, row.counts) - kl
