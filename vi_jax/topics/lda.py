"""Latent Dirichlet allocation of many documents."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.topics import svi
from vi_jax.topics.coherence import match
from vi_jax.topics.counts import Counts, Numpy
from vi_jax.topics.evaluate import completion
from vi_jax.topics.local import CVB0, VB
from vi_jax.topics.result import LDA, USED_TOKENS, rule_of
from vi_jax.topics.runs import SAFE, Settings, make_run
from vi_jax.types import Array

ETA = 0.8  # on average
_BY_FREQUENCY = 0.6  # of eta
_WARM = 2.0  # times eta, in the first sweeps
# of alpha and of eta on average, in the first sweeps of variational Bayes: under small priors
# exp(E[log]) keeps documents and words to the topics that they start with
_WARM_ALPHA = 0.5
_WARM_ETA = 0.2
_FOUND = 0.4  # Hellinger distance within which a restart has found a topic


class _Defaults(NamedTuple):
    alpha: float  # where learning begins
    eta: float
    num_sweeps: int


_DEFAULTS = {
    "partly": _Defaults(0.5, ETA, 60),
    "memoized": _Defaults(0.5, ETA, 100),
    "svi": _Defaults(0.5, ETA, 10),
    "cvb0": _Defaults(0.1, ETA, 60),
    "cavi": _Defaults(0.5, ETA, 200),
}
METHODS = tuple(_DEFAULTS)


class Progress(NamedTuple):
    """What `callback` gets after a sweep. `state` resumes: `fit_lda(..., resume=state)`."""

    sweep: int
    elbo: float  # nats a token; of CVB0, which has no bound, nan
    perplexity: float  # completion by tokens on `valid`, nan where it was not measured
    alpha_sum: float
    topics_used: int
    seconds: float
    state: Any


def fit_lda(
    key: Array,
    counts: Counts,
    *,
    num_topics: int,
    method: str = "partly",
    alpha: str | float | Any = "learn",
    eta: str | float | Any | None = None,
    num_starts: int = 2,
    valid: tuple[Counts, Counts] | None = None,
    valid_every: int = 10,
    callback: Callable[[Progress], Any] | None = None,
    num_sweeps: int | None = None,
    num_iterations: int = 3,
    num_warm: int = 15,
    tolerance: float = 1e-5,
    batch_size: int = 1024,
    schedule: svi.Schedule = svi.DEFAULT_SCHEDULE,
    resume: Any = None,
) -> LDA:
    """Topics of a corpus (Blei et al. 2003).

    Args:
      key: of the starts; with the same key a fit that is resumed has the numbers of one that was
        not interrupted.
      counts: the documents.
      num_topics: K.
      method: "memoized" is variational Bayes whose topics move after every block of documents,
        "cavi" the same whose topics move after all, "svi" the same by stochastic steps; "partly"
        has the topics at their mean (variational EM), and predicts best of these; "cvb0" is
        zero-order collapsed variational Bayes, which has no bound.
      alpha: of the Dirichlet prior of shares, one number or K; "learn" learns K.
      eta: of the Dirichlet prior of topics, one number or V; by default 0.8 on average, in part
        as the words' frequencies. "learn" raises the ELBO by its scale, which as a rule makes it
        small and predicts held-out words worse.
      num_starts: R, side by side; the one of the best criterion is kept.
      valid: two halves of other documents, whose perplexity is measured.
      valid_every: sweeps between measurements.
      callback: gets a `Progress` after every sweep; what it returns stops the fit if true.
      num_sweeps: over all documents, at most; by default the method's.
      num_iterations: of a document's fixed point in a visit, at most, from where it was.
      num_warm: sweeps at the beginning with twice the eta, and by variational methods with an eta
        of at least 0.2 on average and an alpha of at least 0.5: smoother topics leave the optima
        that are near the start.
      tolerance: stop when a sweep moves the criterion by less, nats a token.
      batch_size: documents of a step of "svi".
      schedule: of the steps of "svi".
      resume: the state of a `Progress` to go on from.

    Raises:
      ValueError: numbers out of range, an unknown method, or a corpus without a word.
    """
    key_start, key_run = jax.random.split(as_key(key, "fit_lda"))
    prior = _prior(counts, num_topics, method, alpha, eta)
    svi.is_schedule(schedule)
    settings = Settings(
        method,
        rule_of(method),
        *prior,
        as_count(num_starts, "num_starts", what="R"),
        as_count(num_iterations, "num_iterations"),
        tolerance,
        as_count(num_warm, "num_warm", least=0),
        as_count(batch_size, "batch_size", what="documents"),
        schedule,
    )
    began = time.perf_counter()
    run = make_run(key_run, counts, settings)
    state = resume
    if state is None:
        state = run.init(settings.starts(key_start, counts))
    most = _DEFAULTS[method].num_sweeps if num_sweeps is None else num_sweeps
    before = [_by_token(each, counts) for each in run.criteria(state)]
    criteria = [each for each in before if np.all(np.isfinite(each))]
    record = _Record(run, counts, [], criteria, [], began)
    converged = run.is_converged(criteria, run.number(state))
    while run.number(state) < most and not converged:
        state, bound, criterion = run.sweep(state)
        record.bounds.append(_by_token(bound, counts))
        record.criteria.append(_by_token(criterion, counts))
        number = run.number(state)
        record.measured.append(np.nan)
        if valid is not None and (number % valid_every == 0 or number == most):
            record.measured[-1] = completion(record.result(state), *valid).ppl_tok
        converged = run.is_converged(record.criteria, number)
        if callback is not None and callback(record.progress(state)):
            break
    return replace(record.result(state), converged=converged)


def _by_token(nats: Array, counts: Counts) -> Numpy:
    """Nats a token, [R]."""
    return np.asarray(nats).astype(np.float64) / counts.num_tokens


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


def _prior(
    counts: Counts, num_topics: int, method: str, alpha: Any, eta: Any
) -> tuple[Numpy, bool, Numpy, Numpy, Numpy, bool]:
    """alpha [K], whether it is learned, eta [V], both in the first sweeps, and whether eta is
    learned.
    """
    if method not in METHODS:
        raise ValueError(f"method has to be one of {', '.join(METHODS)}; got {method!r}.")
    num_topics = check_topics(counts, num_topics)
    default = _DEFAULTS[method]
    alpha, learns = _value(alpha, "alpha", default.alpha)
    learns_eta = isinstance(eta, str)
    if learns_eta and eta != "learn":
        raise ValueError(f'eta has to be "learn" or a number; got {eta!r}.')
    eta = prior_of_topics(counts, None if learns_eta else eta, default.eta)
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
    warm_alpha = np.maximum(alpha, _WARM_ALPHA)
    warm_eta = eta * max(_WARM, _WARM_ETA / float(np.mean(eta)))
    return alpha, learns, eta, warm_alpha, warm_eta, learns_eta


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


class _Record(NamedTuple):
    """What a fit has been through."""

    run: Any
    counts: Counts
    bounds: list[Numpy]  # of each sweep, nats a token, [R]
    criteria: list[Numpy]  # of each sweep, nats a token, [R]
    measured: list[float]  # perplexity after each sweep, or nan
    began: float

    @property
    def best(self) -> int:
        """The start to be kept."""
        if not self.criteria:
            return 0
        last = self.criteria[-1]
        return int(np.argmax(np.where(np.isfinite(last), last, -np.inf)))

    def progress(self, state: Any) -> Progress:
        weights = _weights(self.run.topics(state)[self.best], state.eta[self.best])
        return Progress(
            self.run.number(state),
            float(self.bounds[-1][self.best]),
            self.measured[-1],
            float(np.sum(state.alpha[self.best])),
            int(np.sum(weights >= USED_TOKENS)),
            time.perf_counter() - self.began,
            state,
        )

    def result(self, state: Any) -> LDA:
        best = self.best
        topics = self.run.topics(state)
        means = np.asarray(topics / jnp.sum(topics, 2, keepdims=True))
        starts = np.full(len(means), np.nan)
        bounds = self.bounds
        if self.criteria:
            starts = self.criteria[-1]
            bounds = bounds or [_by_token(state.elbo, self.counts)]
        agreed = np.zeros(len(means[0]))
        for other in means:
            agreed += match(means[best], other).distance < _FOUND
        return LDA(
            topics=topics[best],
            alpha=state.alpha[best],
            eta=state.eta[best],
            weights=jnp.asarray(_weights(topics[best], state.eta[best])),
            history=np.array([row[best] for row in bounds]),
            perplexity=np.array(self.measured),
            starts=starts,
            found=agreed / len(means),
            method=self.run.settings.method,
            num_tokens=self.counts.num_tokens,
            num_docs=self.counts.num_docs,
            converged=False,
            seconds=time.perf_counter() - self.began,
        )


def _weights(topics: Array, eta: Array) -> Numpy:
    """Expected tokens of each topic, [K]."""
    return np.asarray(jnp.sum(topics - eta, 1))
