"""Latent Dirichlet allocation of many documents."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.topics import memoized
from vi_jax.topics.blocks import Blocks, make_blocks
from vi_jax.topics.coherence import match
from vi_jax.topics.counts import Counts, Numpy, to_csr
from vi_jax.topics.evaluate import completion
from vi_jax.topics.local import VB, Rule
from vi_jax.topics.priors import from_documents, learn_alpha, learn_alpha_collapsed
from vi_jax.topics.result import LDA, USED_TOKENS, rule_of
from vi_jax.types import Array

METHODS = ("memoized", "cvb0", "cavi")
_DEFAULTS = {"memoized": (0.5, 0.1), "cvb0": (0.1, 0.05), "cavi": (0.5, 0.1)}
_DOCS_PER_TOPIC = 5  # that a topic starts from
_LEARN_FROM = 5  # sweeps before alpha is learned
_LEAST_BLOCKS = 20
_FOUND = 0.4  # Hellinger distance within which a restart has found a topic
_TOLERANCE = 1e-3  # of a document's fixed point within a visit, in shares


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
    method: str = "memoized",
    alpha: str | float | Any = "learn",
    eta: float | None = None,
    num_starts: int = 1,
    valid: tuple[Counts, Counts] | None = None,
    valid_every: int = 10,
    callback: Callable[[Progress], Any] | None = None,
    num_sweeps: int = 100,
    num_iterations: int = 3,
    tolerance: float = 1e-5,
    resume: memoized.State | None = None,
) -> LDA:
    """Topics of a corpus (Blei et al. 2003).

    Args:
      key: of the starts.
      counts: the documents.
      num_topics: K.
      method: "memoized" is variational Bayes whose topics move after every block of documents,
        "cavi" the same whose topics move after all, "cvb0" zero-order collapsed variational Bayes,
        which has no bound.
      alpha: of the Dirichlet prior of shares, one number or K; "learn" learns K.
      eta: of the symmetric prior of topics; by default the method's.
      num_starts: R, side by side; the one of highest ELBO is kept.
      valid: two halves of other documents, whose perplexity is measured.
      valid_every: sweeps between measurements.
      callback: gets a `Progress` after every sweep; what it returns stops the fit if true.
      num_sweeps: at most.
      num_iterations: of a document's fixed point in a visit, at most.
      tolerance: stop when a sweep moves the criterion by less, nats a token.
      resume: the state of a `Progress` to go on from.

    Raises:
      ValueError: numbers out of range, an unknown method, or a corpus without a word.
    """
    key = as_key(key, "fit_lda")
    settings = _settings(counts, num_topics, method, alpha, eta, num_starts)
    blocks = jax.tree.map(
        jnp.asarray, make_blocks(counts, num_topics=num_topics, least=_LEAST_BLOCKS)
    )
    began = time.perf_counter()
    state = resume
    if state is None:
        state = _start(key, counts, blocks, settings)
    run = _Run(settings, counts, blocks, num_iterations, tolerance, began)
    history: list[Numpy] = []
    measured: list[float] = []
    converged = False
    while int(state.num_sweeps.max()) < num_sweeps and not converged:
        state, criterion = run.sweep(state)
        history.append(np.asarray(criterion).astype(np.float64) / max(counts.num_tokens, 1))
        best = int(np.nanargmax(history[-1]))
        number = int(state.num_sweeps.max())
        is_due = valid is not None and (number % valid_every == 0 or number == num_sweeps)
        measured.append(np.nan)
        if is_due and valid is not None:
            measured[-1] = completion(run.result(state, best, history, measured), *valid).ppl_tok
        converged = run.is_converged(history, number)
        if callback is not None and callback(run.progress(state, best, history, measured)):
            break
    best = int(np.nanargmax(history[-1]))
    return replace(run.result(state, best, history, measured), converged=converged)


class _Settings(NamedTuple):
    method: str
    rule: Rule
    alpha: Numpy  # [K]
    learns: bool
    eta: float
    num_starts: int


def _settings(
    counts: Counts, num_topics: int, method: str, alpha: Any, eta: Any, num_starts: int
) -> _Settings:
    if method not in METHODS:
        raise ValueError(f"method has to be one of {', '.join(METHODS)}; got {method!r}.")
    num_topics = as_count(num_topics, "num_topics", what="K")
    num_starts = as_count(num_starts, "num_starts", what="R")
    if counts.num_tokens == 0:
        raise ValueError("there is no word in any of the documents.")
    if num_topics > counts.num_docs:
        raise ValueError(
            f"{num_topics} topics of {counts.num_docs:,} documents: there cannot be more topics "
            "than documents."
        )
    default_alpha, default_eta = _DEFAULTS[method]
    learns = isinstance(alpha, str)
    if learns and alpha != "learn":
        raise ValueError(f'alpha has to be "learn", a number or K numbers; got {alpha!r}.')
    if learns:
        alpha = default_alpha
    values = np.asarray(alpha, np.float32)
    if values.shape not in ((), (num_topics,)) or not np.all(values > 0):
        raise ValueError(f"alpha has to be positive, one number or {num_topics}; got {alpha}.")
    eta = default_eta if eta is None else float(eta)
    if not eta > 0:
        raise ValueError(f"eta has to be positive; got {eta}.")
    rule = rule_of(method)
    return _Settings(method, rule, np.broadcast_to(values, (num_topics,)), learns, eta, num_starts)


def _start(key: Array, counts: Counts, blocks: Blocks, settings: _Settings) -> memoized.State:
    """States of R starts, every leaf [R, ...]."""
    unigram = jnp.asarray(counts.totals / counts.num_tokens, jnp.float32)
    weight = counts.num_tokens / len(settings.alpha)

    def one(key: Array) -> memoized.State:
        key_docs, key_noise = jax.random.split(key)
        rows = _document_rows(key_docs, counts, len(settings.alpha))
        start = from_documents(key_noise, jnp.asarray(rows), unigram) * weight
        return memoized.init(blocks, jnp.asarray(settings.alpha), jnp.float32(settings.eta), start)

    states = [one(key) for key in jax.random.split(key, settings.num_starts)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


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


class _Run(NamedTuple):
    """What a fit does at every sweep."""

    settings: _Settings
    counts: Counts
    blocks: Blocks
    num_iterations: int
    tolerance: float
    began: float

    def sweep(self, state: memoized.State) -> tuple[memoized.State, Array]:
        """The next state, and the criterion of each start [R], nats."""
        num_docs = jnp.float32(np.sum(self.counts.lengths > 0))
        learns = self.settings.learns and int(state.num_sweeps.max()) + 1 >= _LEARN_FROM
        return _sweep(
            self.settings.rule,
            self.settings.method != "cavi",
            self.num_iterations,
            learns,
            self.blocks,
            state,
            num_docs,
        )

    def is_converged(self, history: list[Numpy], number: int) -> bool:
        """Whether the criterion rose too little, after alpha had its first steps."""
        if len(history) < 2 or number < _LEARN_FROM + 2:
            return False
        return bool(np.nanmax(np.abs(history[-1] - history[-2])) < self.tolerance)

    def bound(self, criterion: Numpy) -> Numpy:
        """What of the criterion is a bound: that of variational Bayes."""
        return criterion if self.settings.rule is VB else np.full_like(criterion, np.nan)

    def progress(
        self, state: memoized.State, best: int, history: list[Numpy], measured: list[float]
    ) -> Progress:
        alpha = np.asarray(state.alpha[best])
        used = np.asarray(jnp.sum(state.stats[best], 0)) >= USED_TOKENS
        return Progress(
            int(state.num_sweeps.max()),
            float(self.bound(history[-1])[best]),
            measured[-1],
            float(alpha.sum()),
            int(used.sum()),
            time.perf_counter() - self.began,
            state,
        )

    def result(
        self, state: memoized.State, best: int, history: list[Numpy], measured: list[float]
    ) -> LDA:
        topics = (state.stats + state.eta[:, None, None]).transpose(0, 2, 1)
        means = np.asarray(topics / jnp.sum(topics, 2, keepdims=True))
        agreed = np.zeros(len(means[0]))
        for other in means:
            agreed += match(means[best], other).distance < _FOUND
        return LDA(
            topics=topics[best],
            alpha=state.alpha[best],
            eta=state.eta[best],
            weights=jnp.sum(state.stats[best], 0),
            history=np.array([self.bound(row)[best] for row in history]),
            perplexity=np.array(measured),
            starts=history[-1],
            found=agreed / len(means),
            method=self.settings.method,
            num_tokens=self.counts.num_tokens,
            num_docs=self.counts.num_docs,
            converged=False,
            seconds=time.perf_counter() - self.began,
        )


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sweep(
    rule: Rule,
    incremental: bool,
    num_iterations: int,
    learns: bool,
    blocks: Blocks,
    state: memoized.State,
    num_docs: Array,
) -> tuple[memoized.State, Array]:
    def one(state: memoized.State) -> tuple[memoized.State, Array]:
        state = memoized.sweep(
            rule,
            blocks,
            state,
            num_iterations=num_iterations,
            tolerance=_TOLERANCE,
            incremental=incremental,
        )
        if learns:
            state = state._replace(alpha=_learned(rule, blocks, state, num_docs))
        return state, memoized.elbo(state, num_docs)

    return jax.vmap(one)(state)


def _learned(rule: Rule, blocks: Blocks, state: memoized.State, num_docs: Array) -> Array:
    """alpha [K] after a step of learning."""
    if rule is VB:
        return learn_alpha(state.alpha, jnp.sum(state.log_shares, 0), num_docs)
    expected = jnp.maximum(state.gamma - state.alpha, 0.0).reshape(-1, len(state.alpha))
    return learn_alpha_collapsed(state.alpha, expected, jnp.ravel(blocks.lengths))
