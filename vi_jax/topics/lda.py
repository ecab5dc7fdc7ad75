"""Latent Dirichlet allocation of many documents."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vi_jax.arguments import as_count, as_key
from vi_jax.topics import svi
from vi_jax.topics.coherence import match
from vi_jax.topics.counts import Counts, Numpy
from vi_jax.topics.defaults import DEFAULTS, priors_of
from vi_jax.topics.devices import place_state
from vi_jax.topics.evaluate import completion
from vi_jax.topics.result import LDA, USED_TOKENS, rule_of
from vi_jax.topics.runs import Settings, make_run
from vi_jax.types import Array

_FOUND = 0.4  # Hellinger distance within which a restart has found a topic


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
    mesh: Mesh | None = None,
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
      alpha: of the Dirichlet prior of shares, one number or K; "learn" learns K, from a start of
        0.5 (0.1 by "cvb0"), or less where K of these are more than the mean length of a document.
      eta: of the Dirichlet prior of topics, one number or V; by default 0.5 on average, in part
        as the words' frequencies. "learn" raises the ELBO by its scale, which as a rule makes it
        small and predicts held-out words worse.
      num_starts: R, side by side; the one of the best criterion is kept.
      valid: two halves of other documents, whose perplexity is measured.
      valid_every: sweeps between measurements.
      callback: gets a `Progress` after every sweep; what it returns stops the fit if true.
      num_sweeps: over all documents, at most; by default the method's.
      num_iterations: of a document's fixed point in a visit, at most, from where it was.
      num_warm: sweeps at the beginning with twice the eta, and by variational methods with an eta
        of at least 0.2 on average and an alpha of at least 0.5, or less as above: smoother topics
        leave the optima that are near the start.
      tolerance: stop when a sweep moves the criterion by less, nats a token.
      batch_size: documents of a step of "svi".
      schedule: of the steps of "svi".
      resume: the state of a `Progress` to go on from.
      mesh: of several devices (`vi.shard.make_mesh`): documents over `data`, words over `model`.

    Raises:
      ValueError: numbers out of range, an unknown method, or a corpus without a word.
    """
    key_start, key_run = jax.random.split(as_key(key, "fit_lda"))
    prior = priors_of(counts, num_topics, method, alpha, eta)
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
        mesh,
    )
    began = time.perf_counter()
    run = make_run(key_run, counts, settings)
    if resume is None:
        state = run.init(settings.starts(key_start, counts))
    else:
        state = place_state(resume, mesh)
    most = DEFAULTS[method].num_sweeps if num_sweeps is None else num_sweeps
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
