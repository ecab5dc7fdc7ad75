"""Latent Dirichlet allocation of a stream of documents, in fixed memory."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.topics import svi
from vi_jax.topics.blocks import make_batch
from vi_jax.topics.counts import Counts
from vi_jax.topics.defaults import DEFAULTS, check_topics, most_alpha, prior_of_topics
from vi_jax.topics.result import LDA
from vi_jax.topics.starts import from_documents
from vi_jax.types import Array

_STATIC = ("schedule", "learns", "num_iterations")
_AVERAGED = 0.5  # the share of the steps whose topics are averaged, the last ones


class StreamProgress(NamedTuple):
    """What `callback` gets after a step. `state` resumes: `fit_stream(..., resume=state)`."""

    step: int  # done
    elbo: float  # estimated from the batch, nats a token
    seconds: float
    state: Any


def fit_stream(
    key: Array,
    batch_of: Callable[[int], Counts],
    *,
    num_steps: int,
    num_topics: int,
    num_docs: int,
    alpha: str | float | Any = "learn",
    eta: Any | None = None,
    schedule: svi.Schedule | None = None,
    num_iterations: int = 50,
    callback: Callable[[StreamProgress], Any] | None = None,
    resume: Any = None,
) -> LDA:
    """Topics of documents that are read batch by batch (Hoffman et al. 2010): one batch and the
    topics are all that is held.

    Args:
      key: of the start.
      batch_of: step -> a batch of documents, the same whenever it is asked for; read it from disk
        there. The topics start at documents of the first.
      num_steps: batches in all.
      num_topics: K.
      num_docs: N, documents that are not empty in the whole of the stream.
      alpha: as `fit_lda`.
      eta: as `fit_lda`, its shape by the words of the first batch.
      schedule: of the steps; by default as of "svi", the topics averaged over the last half.
      num_iterations: of a document's fixed point, at most.
      callback: gets a `StreamProgress` after every step; what it returns stops the fit if true.
      resume: the state of a `StreamProgress` to go on from: with the same batches, the numbers of a
        fit that was not interrupted, to the bit.

    Raises:
      ValueError: numbers out of range, or a batch of another vocabulary.
    """
    as_key(key, "fit_stream")
    as_count(num_steps, "num_steps")
    as_count(num_docs, "num_docs")
    if schedule is None:
        schedule = svi.Schedule(average_from=int(_AVERAGED * num_steps))
    svi.is_schedule(schedule)
    began = time.perf_counter()
    first = batch_of(0)
    check_topics(first, num_topics)
    learns = isinstance(alpha, str)
    state = resume
    if state is None:
        state = _start(key, first, num_topics, alpha, eta)
    total = jnp.asarray(num_docs, state.lam.dtype)
    bounds = []
    while int(state.num_steps) < num_steps:
        batch = first if int(state.num_steps) == 0 else batch_of(int(state.num_steps))
        if batch.num_words != first.num_words:
            raise ValueError(
                f"a batch is of {batch.num_words:,} words, the first of {first.num_words:,}."
            )
        made = jax.tree.map(jnp.asarray, make_batch(batch))
        state = _step(
            state,
            made,
            total,
            schedule=schedule,
            learns=learns,
            num_iterations=num_iterations,
        )
        share = max(1, int(np.sum(batch.lengths > 0))) / num_docs
        bounds.append(float(state.elbo) * share / max(1, batch.num_tokens))
        seconds = time.perf_counter() - began
        progress = StreamProgress(int(state.num_steps), bounds[-1], seconds, state)
        if callback is not None and callback(progress):
            break
    return _result(state, first, bounds, num_docs, time.perf_counter() - began)


def _start(key: Array, first: Counts, num_topics: int, alpha: Any, eta: Any) -> svi.State:
    topics = from_documents(key, first, num_topics)
    given = alpha
    if isinstance(alpha, str):
        given = min(DEFAULTS["svi"].alpha, most_alpha(first, num_topics))
    shares = jnp.broadcast_to(jnp.asarray(given, topics.dtype), (num_topics,))
    return svi.init(topics, shares, jnp.asarray(prior_of_topics(first, eta), topics.dtype))


@jax.jit(static_argnames=_STATIC)
def _step(state: svi.State, batch: Any, num_docs: Array, **settings: Any) -> svi.State:
    return svi.svi_step(state, batch, num_docs=num_docs, **settings)


def _result(
    state: svi.State, first: Counts, bounds: list[float], num_docs: int, seconds: float
) -> LDA:
    """The fit for its readers; its tokens are those of the first batch, scaled to the stream."""
    in_first = max(1, int(np.sum(first.lengths > 0)))
    return LDA(
        topics=state.average.T,
        alpha=state.alpha,
        eta=state.eta,
        weights=jnp.sum(state.average - state.eta[:, None], 0),
        history=np.array(bounds),
        perplexity=np.full(len(bounds), np.nan),
        starts=np.array(bounds[-1:] or [np.nan]),
        found=np.ones(len(state.alpha)),
        method="svi",
        num_tokens=round(first.num_tokens * num_docs / in_first),
        num_docs=num_docs,
        converged=True,
        seconds=seconds,
    )
