"""Priors and lengths of fits where none are given, and checks of those that are."""

from typing import Any, NamedTuple

import numpy as np

from vi_jax.arguments import as_count
from vi_jax.topics.counts import Counts, Numpy
from vi_jax.topics.local import CVB0, VB
from vi_jax.topics.result import rule_of
from vi_jax.topics.runs import SAFE

ETA = 0.5  # on average; chosen on training documents (docs/documents.md)
_BY_FREQUENCY = 0.6  # of eta
_WARM = 2.0  # times eta, in the first sweeps
# of alpha and of eta on average, in the first sweeps of variational Bayes: under small priors
# exp(E[log]) keeps documents and words to the topics that they start with
_WARM_ALPHA = 0.5
# Where alpha is ours to choose its sum is at most the mean length of a document: a prior that
# outweighs the words leaves shares where it has them, smoothing then makes topics alike, and an
# alpha that is learned from even shares grows without end.
_MOST_ALPHA_SUM = 1.0  # times the mean length
_WARM_ETA = 0.2


class _Defaults(NamedTuple):
    alpha: float  # where learning begins
    eta: float
    num_sweeps: int


DEFAULTS = {
    "partly": _Defaults(0.5, ETA, 60),
    "memoized": _Defaults(0.5, ETA, 100),
    "svi": _Defaults(0.5, ETA, 10),
    "cvb0": _Defaults(0.1, ETA, 60),
    "cavi": _Defaults(0.5, ETA, 200),
}
METHODS = tuple(DEFAULTS)


def check_topics(counts: Counts, num_topics: Any) -> int:
    """K, a count.

    Raises:
      ValueError: no words, or more topics than documents.
    """
    num_topics = as_count(num_topics, "num_topics", what="K")
    if counts.num_tokens == 0:
        raise ValueError("there is no word in any of the documents.")
    if num_topics > counts.num_docs:
        raise ValueError(
            f"{num_topics} topics of {counts.num_docs:,} documents: there cannot be more topics "
            "than documents."
        )
    return num_topics


def prior_of_topics(counts: Counts, eta: Any, default: float = ETA) -> Numpy:
    """eta [V], of one number, of V, or of its mean `default` where it is None.

    Raises:
      ValueError: not positive, or of another length.
    """
    if eta is None:
        eta = default * _shape(counts)
    eta, _ = _value(eta, "eta", eta)
    num_words = counts.num_words
    if eta.shape not in ((), (num_words,)):
        raise ValueError(f"eta has to be one number or {num_words:,}; got shape {eta.shape}.")
    return np.broadcast_to(eta, (num_words,))


def priors_of(
    counts: Counts, num_topics: int, method: str, alpha: Any, eta: Any
) -> tuple[Numpy, bool, Numpy, Numpy, Numpy, bool]:
    """alpha [K], whether it is learned, eta [V], both in the first sweeps, and whether eta is
    learned.
    """
    if method not in METHODS:
        raise ValueError(f"method has to be one of {', '.join(METHODS)}; got {method!r}.")
    num_topics = check_topics(counts, num_topics)
    default = DEFAULTS[method]
    most = most_alpha(counts, num_topics)
    alpha, learns = _value(alpha, "alpha", min(default.alpha, most))
    learns_eta = isinstance(eta, str)
    if learns_eta and eta != "learn":
        raise ValueError(f'eta has to be "learn" or a number; got {eta!r}.')
    given = None if learns_eta else eta
    eta = prior_of_topics(counts, given, default.eta)
    if alpha.shape not in ((), (num_topics,)):
        raise ValueError(f"alpha has to be one number or {num_topics}; got shape {alpha.shape}.")
    alpha = np.broadcast_to(alpha, (num_topics,))
    if rule_of(method) is VB and max(alpha.min(), eta.min()) < SAFE:
        raise ValueError(
            f"of alpha and eta one has to be at least {SAFE}: below, exp(E[log]) of both is 0 in "
            f"float32; got {alpha.min():.2g} and {eta.min():.2g}."
        )
    if rule_of(method) is CVB0:
        return alpha, learns, eta, alpha, _WARM * eta, learns_eta
    warm_alpha = np.maximum(alpha, np.float32(min(_WARM_ALPHA, most)))
    warm_eta = eta * max(_WARM, _WARM_ETA / float(np.mean(eta)))
    return alpha, learns, eta, warm_alpha, warm_eta, learns_eta


def most_alpha(counts: Counts, num_topics: int) -> float:
    """The largest alpha, one number for K topics, that a fit begins with by itself."""
    num_docs = np.sum(counts.lengths > 0)
    return float(_MOST_ALPHA_SUM * counts.num_tokens / num_docs / num_topics)


def _shape(counts: Counts) -> Numpy:
    """eta by its mean, [V]: a part is even, the rest as the words' frequencies, so that what little
    a topic is seen with falls back on the corpus.
    """
    unigram = counts.totals / counts.num_tokens
    return 1.0 - _BY_FREQUENCY + _BY_FREQUENCY * counts.num_words * unigram


def _value(value: Any, name: str, default: Any) -> tuple[Numpy, bool]:
    """Where to begin, and whether it is learned."""
    learns = isinstance(value, str)
    if learns and value != "learn":
        raise ValueError(f'{name} has to be "learn" or a number; got {value!r}.')
    if learns:
        value = default
    found = np.asarray(value, np.float32)
    if not np.all(found > 0):
        raise ValueError(f"{name} has to be positive; got {np.min(found)}.")
    return found, learns
