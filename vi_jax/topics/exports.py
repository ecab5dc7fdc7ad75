"""A fitted topic model as other libraries hold one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.diagnostics.inference_data import inference_data
from vi_jax.topics.coherence import top_words
from vi_jax.topics.counts import Counts
from vi_jax.topics.evidence import check_words, dirichlets


def to_gensim(fit: Any, vocab: Sequence[str]) -> Any:
    """A gensim LdaModel of the fit's topics and priors, whose `inference` and `show_topics` work.

    Raises:
      ImportError: there is no gensim.
      ValueError: a vocabulary of another length.
    """
    _check_vocab(fit, vocab)
    try:
        from gensim.models import LdaModel
    except ImportError as error:
        raise ImportError("to_gensim needs gensim: pip install gensim.") from error
    model = LdaModel(
        num_topics=fit.num_topics,
        id2word=dict(enumerate(map(str, vocab))),
        alpha=np.asarray(fit.alpha, np.float32),
        eta=np.asarray(fit.eta, np.float32),
        dtype=np.float32,
    )
    stats = np.asarray(fit.topics - fit.eta, np.float32)
    model.state.sstats = np.maximum(stats, 0.0)
    model.state.numdocs = fit.num_docs
    model.sync_state()
    return model


def to_sklearn(fit: Any) -> Any:
    """A scikit-learn LatentDirichletAllocation with the fit's topics, whose `transform` works. Its
    priors are single numbers: they get the means of alpha and eta.

    Raises:
      ImportError: there is no scikit-learn.
    """
    try:
        from sklearn.decomposition import LatentDirichletAllocation
    except ImportError as error:
        raise ImportError("to_sklearn needs scikit-learn: pip install scikit-learn.") from error
    topics = np.asarray(fit.topics, np.float64)
    alpha = float(np.mean(fit.alpha))
    eta = float(np.mean(fit.eta))
    model = LatentDirichletAllocation(
        fit.num_topics, doc_topic_prior=alpha, topic_word_prior=eta, random_state=0
    )
    # what `fit` would leave
    model.components_ = topics
    model.doc_topic_prior_ = alpha
    model.topic_word_prior_ = eta
    model.n_features_in_ = fit.num_words
    model.n_iter_ = len(fit.history)
    model.n_batch_iter_ = len(fit.history)
    model.random_state_ = np.random.RandomState(0)
    model.exp_dirichlet_component_ = np.exp(_expected_log(topics))
    return model


def _expected_log(topics: Any) -> Any:
    from scipy.special import digamma

    return digamma(topics) - digamma(topics.sum(1, keepdims=True))


def to_arviz(
    key: Any, fit: Any, counts: Counts, *, num_samples: int = 1000, num_words: int = 10
) -> Any:
    """An ArviZ InferenceData with samples of the shares of documents, `theta` [1, S, N, K], and of
    the probabilities of each topic's most probable words, `beta` [1, S, K, `num_words`].

    Args:
      key: of the samples.
      fit: a fitted topic model.
      counts: the documents: some, as the samples of all are large.
      num_samples: S.
      num_words: of each topic.

    Raises:
      ImportError: there is no ArviZ.
      ValueError: another vocabulary.
    """
    key_theta, key_beta = jax.random.split(as_key(key, "to_arviz"))
    as_count(num_samples, "num_samples")
    check_words(fit, counts)
    gamma = jnp.asarray(dirichlets(fit, counts))
    theta = jax.random.dirichlet(key_theta, gamma, (num_samples, len(gamma)))
    words = top_words(fit.topics_mean, num_words)
    of_words = jnp.take_along_axis(fit.topics, jnp.asarray(words), 1)
    rest = jnp.sum(fit.topics, 1) - jnp.sum(of_words, 1)
    # the sum over all other words is a Dirichlet's too
    whole = jnp.concatenate([of_words, rest[:, None]], 1)
    beta = jax.random.dirichlet(key_beta, whole, (num_samples, len(whole)))[..., :-1]
    groups = {"posterior": {"theta": theta, "beta": beta}}
    return inference_data(groups, {"method": fit.method})


def _check_vocab(fit: Any, vocab: Sequence[str]) -> None:
    if len(vocab) != fit.num_words:
        raise ValueError(f"the vocabulary has {len(vocab):,} words, the topics {fit.num_words:,}.")
