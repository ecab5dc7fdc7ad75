"""The correlated topic model: topics whose shares go together."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.topics import correlated
from vi_jax.topics.counts import Counts, Numpy, as_rows
from vi_jax.topics.defaults import check_topics, prior_of_topics
from vi_jax.topics.evaluate import completion
from vi_jax.topics.lda import Progress, fit_lda
from vi_jax.topics.result import USED_TOKENS, Readers
from vi_jax.types import Array

_BATCH = 64  # documents at a time
_ROUNDS_OF_NEW = 30  # of the E-step of a document that the fit has not seen
_SWEEPS_OF_START = 20  # of LDA, whose topics the fit starts from


class CTMState(NamedTuple):
    """A fit after some sweeps."""

    topics: Array  # expected occurrences and eta, [V, K]
    mean: Array  # mu, [K]
    covariance: Array  # Sigma, [K, K]
    m: Array  # of q(z) of documents, as of `correlated.Posterior`, [N, K]
    log_v: Array
    tilt: Array
    elbo: Array  # before the last M-step, nats
    criterion: Array  # the same with the log prior of topics, but for a constant
    before: Array  # the criterion after the sweep before the last
    num_sweeps: Array  # int32


@dataclass(frozen=True)
class CTM(Readers):
    """A fitted correlated topic model."""

    topics: Array  # E[beta] in rows that sum to 1, [K, V]
    mean: Array  # of z, [K]
    covariance: Array  # of z, [K, K]
    weights: Array  # expected tokens of each topic, [K]
    history: Numpy  # `elbo` after each sweep, nats a token, [sweeps]
    perplexity: Numpy  # completion on `valid` by tokens after each sweep, nan where not measured
    num_tokens: int
    num_docs: int
    converged: bool
    seconds: float
    method: str = "ctm"
    starts: tuple[float, ...] = ()
    found: tuple[float, ...] = ()

    @property
    def topics_mean(self) -> Array:
        """The topics, [K, V]; rows sum to 1."""
        return self.topics

    @property
    def alpha(self) -> Array:
        """softmax(mu), [K], where a Dirichlet's alpha is asked for."""
        return jax.nn.softmax(self.mean)

    @property
    def correlation(self) -> Array:
        """Correlations of z less its mean over topics, [K, K]: what is left of Sigma when a
        constant added to all of z, which no share depends on, is taken out.
        """
        size = len(self.mean)
        centring = jnp.eye(size) - 1.0 / size
        within = centring @ self.covariance @ centring
        scale = jnp.sqrt(jnp.maximum(jnp.diagonal(within), 1e-12))
        return within / scale / scale[:, None]

    def shares(self, counts: Counts) -> Numpy:
        """softmax(m) of each document, m the mean of its q(z), [N, K].

        Raises:
          ValueError: another vocabulary.
        """
        self._require_vocabulary(counts)
        rows = _batched(counts)
        start = jnp.broadcast_to(self.mean, (*rows["ids"].shape[:2], len(self.mean)))
        prior = correlated.prior_of(self.mean, self.covariance)
        m = _infer(prior, rows, self.topics.T, start)
        shares = np.asarray(jax.nn.softmax(m, -1))
        return shares.reshape(-1, self.num_topics)[: counts.num_docs]

    def __str__(self) -> str:
        away = np.asarray(self.correlation) - np.eye(self.num_topics)
        lines = [
            f"correlated topic model: {self.num_topics} topics of {self.num_words:,} words, "
            f"{self.num_docs:,} documents, {self.num_tokens:,} tokens, {len(self.history)} sweeps, "
            f"{self.seconds:.1f} s",
            f"ELBO {self.elbo / self.num_tokens:.4f} nats a token",
            f"twins {len(self.twins)}, largest correlation of two topics {away.max():.2f}",
        ]
        if not self.converged:
            lines.append("not converged: give it more sweeps")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)  # what a notebook shows


def fit_ctm(
    key: Array,
    counts: Counts,
    *,
    num_topics: int,
    eta: float | Any | None = None,
    valid: tuple[Counts, Counts] | None = None,
    valid_every: int = 10,
    callback: Callable[[Progress], Any] | None = None,
    num_sweeps: int = 60,
    num_rounds: int = 3,
    tolerance: float = 1e-5,
    resume: CTMState | None = None,
) -> CTM:
    """Topics whose shares are softmax(z) of a document, z ~ N(mu, Sigma) with a full Sigma (Blei &
    Lafferty 2007), by variational EM.

    The E-step is `correlated.ascend`; the M-step is exact: mu and Sigma by their moments under q
    (sec. 3.2), the topics at their mode under Dirichlet(eta + 1), as of "partly" in `fit_lda`. The
    criterion, the ELBO with the topics' log prior, never falls.

    Args:
      key: of the start, the topics of an LDA of a few sweeps.
      counts: the documents; those that are empty say nothing.
      num_topics: K, of at least 2.
      eta: of the prior of topics, one number or V; as of `fit_lda`.
      valid: two halves of other documents, whose perplexity is measured.
      valid_every: sweeps between measurements.
      callback: gets a `Progress` after every sweep; what it returns stops the fit if true.
      num_sweeps: over all documents, at most.
      num_rounds: of a document's E-step in a sweep, from where it was.
      tolerance: stop when a sweep moves the criterion by less, nats a token.
      resume: the state of a `Progress` to go on from.

    Raises:
      ValueError: numbers out of range, or a corpus without a word.
    """
    num_topics = as_count(check_topics(counts, num_topics), "num_topics", least=2, what="K")
    as_count(num_rounds, "num_rounds")
    eta = jnp.asarray(prior_of_topics(counts, eta), jnp.result_type(float))
    began = time.perf_counter()
    rows = _batched(counts)
    state = resume
    if state is None:
        topics = _start_topics(as_key(key, "fit_ctm"), counts, num_topics, eta)
        state = _start(topics, rows)
    history: list[float] = []
    measured: list[float] = []
    converged = False
    while int(state.num_sweeps) < num_sweeps and not converged:
        state = _sweep(state, rows, eta, num_rounds)
        history.append(float(state.elbo) / counts.num_tokens)
        measured.append(np.nan)
        number = int(state.num_sweeps)
        if valid is not None and (number % valid_every == 0 or number == num_sweeps):
            fit = _result(state, eta, counts, history, measured, began)
            measured[-1] = completion(fit, *valid).ppl_tok
        moved = abs(float(state.criterion - state.before)) / counts.num_tokens
        converged = moved < tolerance
        weights = jnp.sum(state.topics - eta[:, None], 0)
        used = int(jnp.sum(weights >= USED_TOKENS))
        seconds = time.perf_counter() - began
        progress = Progress(number, history[-1], measured[-1], np.nan, used, seconds, state)
        if callback is not None and callback(progress):
            break
    return _result(state, eta, counts, history, measured, began, converged=converged)


def _batched(counts: Counts) -> dict[str, Array]:
    """Documents in batches, {"ids", "counts"} [B, D, L]; the last is filled up with empty ones."""
    rows = as_rows(counts)
    missing = -counts.num_docs % _BATCH
    found = {}
    for name, leaf in rows.items():
        whole = np.concatenate([leaf, np.zeros((missing, leaf.shape[1]), leaf.dtype)])
        found[name] = jnp.asarray(whole.reshape(-1, _BATCH, leaf.shape[1]))
    found["counts"] = found["counts"].astype(jnp.result_type(float))
    return found


def _start_topics(key: Array, counts: Counts, num_topics: int, eta: Array) -> Array:
    """Expected occurrences and eta of topics to start from, [V, K]."""
    fit = fit_lda(
        key, counts, num_topics=num_topics, eta=eta, num_starts=1, num_sweeps=_SWEEPS_OF_START
    )
    return fit.topics.T


def _start(topics: Array, rows: dict[str, Array]) -> CTMState:
    size = topics.shape[1]
    num_docs = rows["ids"].shape[0] * rows["ids"].shape[1]
    none = jnp.full((), -jnp.inf, topics.dtype)
    mean = jnp.zeros(size, topics.dtype)
    q = correlated.start_at(jnp.zeros((num_docs, size), topics.dtype))
    covariance = jnp.eye(size, dtype=topics.dtype)
    return CTMState(topics, mean, covariance, q.m, q.log_v, q.tilt, none, none, none, jnp.int32(0))


@partial(jax.jit, static_argnums=3)
def _sweep(state: CTMState, rows: dict[str, Array], eta: Array, num_rounds: int) -> CTMState:
    """An E-step from where documents were, then the M-step."""
    (num_batches, size, _) = rows["ids"].shape
    num_topics = len(state.mean)
    beta = state.topics / jnp.sum(state.topics, 0)
    prior = correlated.prior_of(state.mean, state.covariance)

    def document(ids: Array, counts: Array, q: Any) -> tuple[Any, Array, Array]:
        words = beta[ids]
        q = correlated.ascend_for(num_rounds, prior, counts, words, q)
        value = correlated.document_bound(prior, counts, words, q)
        return q, value, correlated.assigned(counts, words, q.m)

    def batch(stats: Array, inputs: Any) -> tuple[Array, Any]:
        some, q = inputs
        q, value, assigned = jax.vmap(document)(some["ids"], some["counts"], q)
        return stats.at[some["ids"]].add(assigned), (q, value)

    before = correlated.Posterior(state.m, state.log_v, state.tilt)
    inputs = (rows, jax.tree.map(lambda leaf: leaf.reshape(num_batches, size, num_topics), before))
    stats, (q, values) = jax.lax.scan(batch, jnp.zeros_like(state.topics), inputs)
    q = jax.tree.map(lambda leaf: leaf.reshape(-1, num_topics), q)
    is_full = (jnp.sum(rows["counts"], -1) > 0).ravel()
    elbo = jnp.sum(jnp.where(is_full, values.ravel(), 0.0))
    criterion = elbo + jnp.sum(eta[:, None] * jnp.log(beta))
    mean, covariance = _moments(q.m, q.log_v, is_full)
    number = state.num_sweeps + 1
    topics = stats + eta[:, None]
    before_it = state.criterion
    return CTMState(
        topics, mean, covariance, q.m, q.log_v, q.tilt, elbo, criterion, before_it, number
    )


def _moments(m: Array, log_v: Array, is_full: Array) -> tuple[Array, Array]:
    """mu and Sigma that raise the ELBO most: moments of z under q of the documents."""
    weights = is_full / jnp.sum(is_full)
    mean = weights @ m
    away = (m - mean) * jnp.sqrt(weights)[:, None]
    return mean, away.T @ away + jnp.diag(weights @ jnp.exp(log_v))


@jax.jit
def _infer(prior: correlated.Prior, rows: dict[str, Array], beta: Array, start: Array) -> Array:
    """Means of q of documents that the fit has not seen, [B, D, K], from start [B, D, K]."""

    def document(ids: Array, counts: Array, m: Array) -> Array:
        q = correlated.start_at(m)
        return correlated.ascend_for(_ROUNDS_OF_NEW, prior, counts, beta[ids], q).m

    def batch(inputs: Any) -> Array:
        some, m = inputs
        return jax.vmap(document)(some["ids"], some["counts"], m)

    return jax.lax.map(batch, (rows, start))


def _result(
    state: CTMState,
    eta: Array,
    counts: Counts,
    history: list[float],
    measured: list[float],
    began: float,
    *,
    converged: bool = False,
) -> CTM:
    if not history:  # of a fit that was resumed at its end
        history = [float(state.elbo) / counts.num_tokens]
    return CTM(
        topics=(state.topics / jnp.sum(state.topics, 0)).T,
        mean=state.mean,
        covariance=state.covariance,
        weights=jnp.sum(state.topics - eta[:, None], 0),
        history=np.array(history),
        perplexity=np.array(measured),
        num_tokens=counts.num_tokens,
        num_docs=counts.num_docs,
        converged=converged,
        seconds=time.perf_counter() - began,
    )
