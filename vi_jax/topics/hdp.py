"""Topics whose number is found: the hierarchical Dirichlet process by direct assignment."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma, gammaln

from vi_jax.arguments import as_key
from vi_jax.topics import memoized, merges, sticks
from vi_jax.topics.blocks import Blocks, make_blocks
from vi_jax.topics.counts import Counts, Numpy
from vi_jax.topics.defaults import check_topics, prior_of_topics
from vi_jax.topics.lda import Progress
from vi_jax.topics.local import VB
from vi_jax.topics.result import LDA, USED_TOKENS
from vi_jax.topics.starts import from_documents
from vi_jax.types import Array

_TOLERANCE = 1e-3  # of a document's fixed point within a visit, in shares
_LEAST_BLOCKS = 20
_LEARN_FROM = 5  # sweeps before the sticks move
_SETTLE = 5  # sweeps that a proposal of fewer topics may take before it is judged
_SLACK = 1e-6  # of the ELBO, relative: what float32 sums cannot tell apart


class _Fit(NamedTuple):
    """A fit after some sweeps."""

    state: memoized.State
    sticks: sticks.Sticks
    concentration: float  # a
    elbo: float  # nats

    @property
    def num_topics(self) -> int:
        return len(self.sticks.ones)


def fit_hdp(
    key: Array,
    counts: Counts,
    *,
    num_topics: int = 100,
    concentration: float = 0.5,
    gamma: float = 10.0,
    eta: Any | None = None,
    num_sweeps: int = 100,
    num_iterations: int = 3,
    num_warm: int = 15,
    propose_every: int = 5,
    tolerance: float = 1e-5,
    callback: Callable[[Progress], Any] | None = None,
) -> LDA:
    """Topics of a corpus, and how many (Teh et al. 2006), by memoized variational Bayes of direct
    assignments (Hughes, Kim & Sudderth 2015).

    The documents' shares are Dirichlet(a b), b the weights of all topics in the corpus, broken from
    a stick of Beta(1, gamma) parts; q(b) is a full posterior, so that the ELBO can be compared
    across numbers of topics. Every few sweeps pairs of topics are merged and topics that hold
    almost nothing are deleted, and what results is kept where the ELBO has risen.

    Args:
      key: of the start.
      counts: the documents.
      num_topics: K at the beginning; it only falls.
      concentration: a to begin with; it is learned.
      gamma: of the prior of sticks.
      eta: of the Dirichlet prior of topics, one number or V; as `fit_lda` if not given.
      num_sweeps: over all documents, at most; those of refused proposals count.
      num_iterations: of a document's fixed point in a visit, at most.
      num_warm: sweeps at the beginning with twice the eta.
      propose_every: sweeps between proposals of fewer topics; 0 for none.
      tolerance: stop when a sweep moves the ELBO by less, nats a token, and no proposal is kept.
      callback: gets a `Progress` after every sweep; what it returns stops the fit if true.

    Returns:
      An LDA whose alpha is a E[b], K the topics that are left.

    Raises:
      ValueError: numbers out of range, or a corpus without a word.
    """
    key = as_key(key, "fit_hdp")
    num_topics = check_topics(counts, num_topics)
    prior = prior_of_topics(counts, eta)
    if min(concentration, gamma) <= 0:
        raise ValueError(
            f"concentration and gamma have to be positive; got {concentration} and {gamma}."
        )
    settled_from = max(num_warm, _LEARN_FROM)
    run = _Run(counts, gamma, num_iterations, prior, num_topics)
    fit = run.start(key, num_topics, concentration)
    bounds: list[float] = []
    converged = False
    number = 0
    while number < num_sweeps and not converged:
        number += 1
        before = fit.elbo
        heat = 2.0 if number <= num_warm else 1.0
        fit = run.sweep(fit, heat=heat)
        bounds.append(fit.elbo / counts.num_tokens)
        is_still = abs(fit.elbo - before) < tolerance * counts.num_tokens
        if number > settled_from:
            fewer, spent = run.fewer(fit, number, propose_every, is_still=is_still)
            number += spent
            converged = is_still and fewer.num_topics == fit.num_topics
            fit = fewer
        if callback is not None and callback(run.progress(fit, number, bounds)):
            break
    return run.result(fit, bounds, converged=converged)


class _Run:
    """The documents and the settings of a fit."""

    def __init__(
        self, counts: Counts, gamma: float, num_iterations: int, eta: Numpy, num_topics: int
    ) -> None:
        """`eta` is [V], `num_topics` those at the beginning."""
        self._counts = counts
        self._gamma = gamma
        self._num_iterations = num_iterations
        self._eta = eta
        self._lengths = counts.lengths[counts.lengths > 0].astype(np.float64)
        self._began = time.perf_counter()
        made = make_blocks(counts, num_topics=num_topics, least=_LEAST_BLOCKS)
        self._blocks: Blocks = jax.tree.map(jnp.asarray, made)

    def start(self, key: Array, num_topics: int, concentration: float) -> _Fit:
        """Before the first sweep: equal weights."""
        weights = np.full(num_topics + 1, 1.0 / (num_topics + 1))
        broken = sticks.from_weights(weights, len(self._lengths))
        topics = from_documents(key, self._counts, num_topics)
        alpha = jnp.asarray(concentration * weights[:-1], topics.dtype)
        state = memoized.init(self._blocks, alpha, jnp.asarray(self._eta, topics.dtype), topics)
        return _Fit(state, broken, concentration, -np.inf)

    def sweep(self, fit: _Fit, *, heat: float = 1.0) -> _Fit:
        """Documents and topics, then the sticks, in the order of the topics' sizes."""
        alpha = np.asarray(fit.state.alpha, np.float64)
        state, given_words, log_shares = _sweep(
            self._num_iterations, self._blocks, fit.state, jnp.asarray(heat, jnp.float32)
        )
        rest = fit.concentration * fit.sticks.weights[-1]
        of_rest, shift, log_rest = _rest(self._lengths, alpha.sum(), rest)
        seen = sticks.Seen(
            float(len(self._lengths)),
            fit.concentration,
            self._gamma,
            np.append(np.asarray(log_shares, np.float64) - shift, log_rest),
        )
        fit = fit._replace(state=state)
        if int(state.num_sweeps) >= _LEARN_FROM:
            fit, seen = self._broken(fit, seen)
        elbo = float(given_words) + of_rest + sticks.bound(fit.sticks, seen)
        return fit._replace(elbo=elbo)

    def _broken(self, fit: _Fit, seen: sticks.Seen) -> tuple[_Fit, sticks.Seen]:
        """Sticks and concentration at their optimum."""
        best = sticks.optimum(fit.sticks, seen)
        # sticks are biased towards large topics first: another order is another guide
        order = np.argsort(-np.asarray(jnp.sum(fit.state.stats, 0)), kind="stable")
        whole = np.append(order, len(order))
        sorted_seen = seen._replace(log_shares=seen.log_shares[whole])
        start = sticks.from_weights(best.weights[whole], seen.num_docs)
        sorted_sticks = sticks.optimum(start, sorted_seen)
        state = fit.state
        if sticks.bound(sorted_sticks, sorted_seen) > sticks.bound(best, seen):
            best = sorted_sticks
            seen = sorted_seen
            state = merges.select(state, order)
        concentration = sticks.best_concentration(best, seen)
        seen = seen._replace(concentration=concentration)
        alpha = jnp.asarray(concentration * best.weights[:-1], state.alpha.dtype)
        return fit._replace(
            state=state._replace(alpha=alpha), sticks=best, concentration=concentration
        ), seen

    def fewer(
        self, fit: _Fit, number: int, propose_every: int, *, is_still: bool
    ) -> tuple[_Fit, int]:
        """`propose` where that is due, in sweep `number`."""
        is_due = is_still or (propose_every > 0 and number % propose_every == 0)
        if propose_every == 0 or not is_due:
            return fit, 0
        return self.propose(fit, is_still=is_still)

    def propose(self, fit: _Fit, *, is_still: bool) -> tuple[_Fit, int]:
        """The fit with fewer topics where the ELBO rises by that, and the sweeps it took to see."""
        spent = 0
        plans = merges.plans(
            self._blocks,
            fit.state,
            num_docs=len(self._lengths),
            least=float(self._lengths.mean()),
            is_still=is_still,
        )
        for plan in plans:
            trial = self._with(fit, plan)
            for _ in range(_SETTLE):
                trial = self.sweep(trial)
                spent += 1
                if trial.elbo > fit.elbo:
                    break
            if trial.elbo >= fit.elbo - _SLACK * abs(fit.elbo):
                return trial, spent
        return fit, spent

    def _with(self, fit: _Fit, plan: merges.Plan) -> _Fit:
        """The fit after a plan."""
        weights = fit.sticks.weights
        state, kept = merges.apply(fit.state, plan)
        merged = weights[:-1].copy()
        for into, away in plan.pairs:
            merged[into] += merged[away]
        left = np.append(merged[kept], 0.0)
        left[-1] = max(1.0 - left.sum(), 1e-6)
        broken = sticks.from_weights(left / left.sum(), len(self._lengths))
        alpha = jnp.asarray(fit.concentration * broken.weights[:-1], state.alpha.dtype)
        return fit._replace(state=state._replace(alpha=alpha), sticks=broken)

    def progress(self, fit: _Fit, number: int, bounds: list[float]) -> Progress:
        """What a callback gets."""
        return Progress(
            number,
            bounds[-1],
            np.nan,
            float(jnp.sum(fit.state.alpha)),
            int(np.sum(np.asarray(jnp.sum(fit.state.stats, 0)) >= USED_TOKENS)),
            time.perf_counter() - self._began,
            fit,
        )

    def result(self, fit: _Fit, bounds: list[float], *, converged: bool) -> LDA:
        """The fit for its readers."""
        state = fit.state
        return LDA(
            topics=(state.stats + state.eta[:, None]).T,
            alpha=state.alpha,
            eta=state.eta,
            weights=jnp.sum(state.stats, 0),
            history=np.array(bounds),
            perplexity=np.full(len(bounds), np.nan),
            starts=np.array([fit.elbo / self._counts.num_tokens]),
            found=np.ones(fit.num_topics),
            method="hdp",
            num_tokens=self._counts.num_tokens,
            num_docs=self._counts.num_docs,
            converged=converged,
            seconds=time.perf_counter() - self._began,
        )


@partial(jax.jit, static_argnums=0)
def _sweep(
    num_iterations: int, blocks: Blocks, state: memoized.State, heat: Array
) -> tuple[memoized.State, Array, Array]:
    """The state, its part of the ELBO without the shares' prior, and the sum of E[log share]."""
    state = memoized.sweep(
        VB, blocks, state, num_iterations=num_iterations, tolerance=_TOLERANCE, heat=heat
    )
    value = jnp.sum(state.value) + memoized.topics_bound(state)
    return state, value, jnp.sum(state.log_shares, 0)


def _rest(lengths: Numpy, alpha: float, rest: float) -> tuple[float, float, float]:
    """What the share of all further topics, Dirichlet parameter `rest` in every document, changes:
    the ELBO's part of the documents, how much each sum of E[log share] falls, and its own sum.

    Args:
      lengths: tokens of the documents that are not empty, [N].
      alpha: the sum of the topics' own parameters; gamma of a document sums to that and its tokens.
      rest: a E[b_{K+1}].
    """
    before = alpha + lengths
    after = before + rest
    falls = digamma(after) - digamma(before)
    log_rest = digamma(rest) - digamma(after)
    change = (before - lengths) * falls + gammaln(before) - gammaln(after)
    change += gammaln(rest) - rest * log_rest
    return float(np.sum(change)), float(np.sum(falls)), float(np.sum(log_rest))
