"""Stochastic variational inference for topics: one step per batch of documents, so that a corpus
may be larger than memory.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.topics.local import VB, Rule, fixed_point, scaled_topics, summarise
from vi_jax.topics.priors import learn_alpha, learn_eta
from vi_jax.topics.special import log_gamma
from vi_jax.types import Array

_LEARN_FROM = 10  # steps before alpha is learned


class State(NamedTuple):
    """A fit after some steps; the topics are Dirichlet(lam)."""

    lam: Array  # [V, K]
    average: Array  # mean of lam over the steps since averaging began, else lam, [V, K]
    alpha: Array  # prior of shares, [K]
    eta: Array  # prior of topics, [V]
    log_shares: Array  # running mean of E[log theta] of documents, [K]
    elbo: Array  # estimate from the last batch, at the topics before its step, nats
    before: Array  # the mean of the estimates in the pass before the last, nats
    num_steps: Array  # int32


class Schedule(NamedTuple):
    """rho_t = (t + tau0)^-kappa of step t = 0, 1, ... (Hoffman et al. 2010, eq. 5)."""

    kappa: float = 0.7  # in (0.5, 1], for which the steps converge
    tau0: float = 64.0  # of at least 0; more makes the first steps smaller
    average_from: int | None = None  # the step from which topics are averaged (Polyak); None: never
    alternations: int = 1  # of more, the trust region of Theis & Hoffman (2015)


DEFAULT_SCHEDULE = Schedule()


def init(start: Array, alpha: Array, eta: Array) -> State:
    """Before the first step: topics by `start` [V, K], expected occurrences of every word."""
    lam = start + eta[:, None]
    zero = jnp.zeros((), lam.dtype)
    none = zero - jnp.inf
    return State(lam, lam, alpha, eta, jnp.zeros_like(alpha), none, none, jnp.int32(0))


def svi_step(
    state: State,
    batch: Any,
    *,
    num_docs: float | Array,
    schedule: Schedule = DEFAULT_SCHEDULE,
    learns: bool = True,
    learns_eta: bool = False,
    num_iterations: int = 50,
    tolerance: float = 1e-3,
    rule: Rule = VB,
) -> State:
    """lambda <- (1 - rho) lambda + rho (eta + N / B stats(batch)) (Hoffman et al. 2010, alg. 2).

    With several `alternations` the batch's shares and its topics are found in turn, which is the
    trust region's step: it does not forget what little was learned by a first large rho.

    Args:
      state: of the step before.
      batch: one block of documents: `blocks.make_batch`.
      num_docs: N, the documents of the corpus that are not empty.
      schedule: of the steps.
      learns: learn alpha, from a running mean of E[log theta].
      learns_eta: learn eta.
      num_iterations: of a document's fixed point, at most.
      tolerance: of it, in shares.
      rule: see `local.Rule`.
    """
    number = state.num_steps.astype(state.lam.dtype)
    rho = (number + schedule.tau0 + 1.0) ** -schedule.kappa
    in_batch = jnp.maximum(jnp.sum(batch.lengths > 0), 1)
    weight = num_docs / in_batch
    gamma = state.alpha + batch.lengths[:, None] / state.alpha.shape[0]
    lam = state.lam
    value = jnp.zeros((), lam.dtype)
    for alternation in range(schedule.alternations):
        rows = lam.at[batch.words].get(mode="fill", fill_value=1.0)
        b, shift = scaled_topics(rule, rows, jnp.sum(lam, 0))
        gamma, _ = fixed_point(
            rule,
            batch,
            b,
            state.alpha,
            gamma,
            num_iterations=num_iterations,
            tolerance=tolerance,
        )
        local = summarise(rule, batch, b, shift, gamma)
        if alternation == 0:
            value = estimate(state, local, in_batch, num_docs)
        lam = (1.0 - rho) * state.lam + rho * state.eta[:, None]
        lam = lam.at[batch.words].add(
            rho * weight * local.stats, mode="drop", indices_are_sorted=True
        )
    mean = jnp.sum(local.log_shares, 0) / in_batch
    is_first = state.num_steps == 0
    log_shares = jnp.where(is_first, mean, (1.0 - rho) * state.log_shares + rho * mean)
    alpha = state.alpha
    if learns:
        found = learn_alpha(alpha, log_shares, jnp.ones((), lam.dtype), num_iterations=5)
        alpha = jnp.where(state.num_steps >= _LEARN_FROM, found, alpha)
    eta = state.eta
    if learns_eta:
        found_eta = learn_eta(eta, lam, num_iterations=3)
        eta = jnp.where(state.num_steps >= _LEARN_FROM, found_eta, eta)
    return State(
        lam,
        _averaged(state, lam, schedule),
        alpha,
        eta,
        log_shares,
        value,
        state.before,
        state.num_steps + 1,
    )


def _averaged(state: State, lam: Array, schedule: Schedule) -> Array:
    if schedule.average_from is None:
        return lam
    number = state.num_steps - schedule.average_from
    rate = 1.0 / (jnp.maximum(number, 0) + 1.0).astype(lam.dtype)
    return jnp.where(number >= 0, state.average + rate * (lam - state.average), lam)


def estimate(state: State, local: Any, in_batch: Array, num_docs: float | Array) -> Array:
    """An unbiased estimate of the ELBO at the topics of `state`, nats, from a random batch."""
    alpha = state.alpha
    prior = log_gamma(jnp.sum(alpha)) - jnp.sum(log_gamma(alpha))
    shares = jnp.sum(local.value) + jnp.sum(alpha * jnp.sum(local.log_shares, 0))
    return num_docs * (shares / in_batch + prior) - topics_kl(state.lam, state.eta)


def topics_kl(lam: Array, eta: Array) -> Array:
    """KL(q(beta), p(beta)) of all topics, eta [V], nats."""
    num_topics = lam.shape[1]
    total = jnp.sum(lam, 0)
    log_beta = VB.log_topics(lam, total)
    prior = jnp.sum(log_gamma(eta)) - log_gamma(jnp.sum(eta))
    normalisers = jnp.sum(log_gamma(total)) - jnp.sum(log_gamma(lam)) + num_topics * prior
    return normalisers + jnp.sum((lam - eta[:, None]) * log_beta)


def is_schedule(schedule: Schedule) -> None:
    """Raises ValueError unless the steps of the schedule converge."""
    if not 0.5 < schedule.kappa <= 1.0 or schedule.tau0 < 0.0 or schedule.alternations < 1:
        raise ValueError(
            "steps converge for kappa in (0.5, 1], tau0 of at least 0 and alternations of at "
            f"least 1; got {schedule.kappa}, {schedule.tau0} and {schedule.alternations}."
        )


def steps(state: State, blocks: Any, order: Array, **settings: Any) -> State:
    """A step for each of the blocks named in `order` [n], compiled as one loop."""

    def one(state: State, index: Array) -> tuple[State, Array]:
        batch = jax.tree.map(lambda leaf: leaf[index], blocks)
        state = svi_step(state, batch, **settings)
        return state, state.elbo

    state, elbos = jax.lax.scan(one, state, order)
    return state._replace(elbo=jnp.mean(elbos))
