"""Memoized variational Bayes for topics: each block's statistics are taken out, found anew and put
back, so that the topics move after every block and the ELBO never falls (Neal & Hinton 1998;
Hughes & Sudderth 2013).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.topics.local import PARTLY, VB, Rule, fixed_point, scaled_topics, summarise
from vi_jax.topics.special import log_gamma
from vi_jax.types import Array


class State(NamedTuple):
    """A fit after some sweeps; the topics are Dirichlet(eta + stats)."""

    stats: Array  # expected occurrences of each word by topic, [V, K]
    alpha: Array  # prior of shares, [K]
    eta: Array  # prior of topics, [V]
    gamma: Array  # shares of the documents of each block, [B, D, K]
    memo: Array  # each block's part of `stats`, [B, U, K]
    value: Array  # each block's part of the ELBO, alpha's and the topics' not in it, nats, [B]
    log_shares: Array  # each block's sum of E[log theta], [B, K]
    moved: Array  # of each block's shares in its last visit, the largest; in shares, [B]
    elbo: Array  # after the last sweep, nats; see `bound`
    criterion: Array  # what the fit raises, likewise
    before: Array  # the criterion after the sweep before the last
    num_sweeps: Array  # int32


def init(blocks: Any, alpha: Array, eta: Array, start: Array) -> State:
    """Before the first sweep: topics by `start` [V, K], expected occurrences of every word, a part
    of which leaves with each block of the first sweep; eta is [V].
    """
    num_blocks = blocks.ids.shape[0]
    num_topics = alpha.shape[0]
    even = blocks.lengths[..., None] / num_topics
    holders = jnp.zeros(start.shape[0], start.dtype).at[blocks.words.ravel()].add(1.0, mode="drop")
    part = start / jnp.maximum(holders, 1.0)[:, None]
    none = jnp.full((), -jnp.inf, alpha.dtype)
    return State(
        jnp.where(holders[:, None] > 0, start, 0.0),
        alpha,
        eta,
        alpha + even.astype(alpha.dtype),
        part.at[blocks.words].get(mode="fill", fill_value=0.0),
        jnp.zeros(num_blocks, alpha.dtype),
        jnp.zeros((num_blocks, num_topics), alpha.dtype),
        jnp.full(num_blocks, jnp.inf, alpha.dtype),
        none,
        none,
        none,
        jnp.int32(0),
    )


def sweep(
    rule: Rule,
    blocks: Any,
    state: State,
    *,
    num_iterations: int,
    tolerance: float,
    incremental: bool = True,
    heat: float | Array = 1.0,
) -> State:
    """Visits every block once.

    Args:
      rule: see `local.Rule`; with VB the ELBO does not fall.
      blocks: all documents.
      state: of the sweep before.
      num_iterations: of a document's fixed point, from where it was, at most.
      tolerance: of the fixed point, in shares.
      incremental: move the topics after every block; else at the end, as coordinate ascent.
      heat: what eta is multiplied by in this sweep, one number or V: smoother topics let go of
        their starts.
    """
    eta = state.eta * heat
    eta_total = jnp.sum(eta)

    def visit(carry: tuple[Array, Array], inputs: Any) -> tuple[tuple[Array, Array], Any]:
        stats, total = carry
        block, gamma, memo = inputs
        seen = (stats, total) if incremental else (state.stats, jnp.sum(state.stats, 0))
        lam = seen[0].at[block.words].get(mode="fill", fill_value=0.0)
        lam = lam + eta.at[block.words].get(mode="fill", fill_value=1.0)[:, None]
        lam_total = seen[1] + eta_total
        b, shift = scaled_topics(rule, lam, lam_total)
        gamma, moved = fixed_point(
            rule,
            block,
            b,
            state.alpha,
            gamma,
            num_iterations=num_iterations,
            tolerance=tolerance,
        )
        local = summarise(rule, block, b, shift, gamma)
        change = local.stats - memo
        stats = stats.at[block.words].add(change, mode="drop", indices_are_sorted=True)
        total = total + jnp.sum(change, 0)
        # -E[log b] of the words, whose part of the ELBO is found when the topics have moved
        log_b = rule.log_topics(lam, lam_total)
        value = jnp.sum(local.value) - jnp.sum(local.stats * log_b)
        found = (gamma, local.stats, value, jnp.sum(local.log_shares, 0), moved)
        return (stats, total), found

    start = (state.stats, jnp.sum(state.stats, 0))
    (stats, _), found = jax.lax.scan(visit, start, (blocks, state.gamma, state.memo))
    (gammas, memo, value, log_shares, moved) = found
    return state._replace(
        stats=stats,
        gamma=gammas,
        memo=memo,
        value=value,
        log_shares=log_shares,
        moved=moved,
        num_sweeps=state.num_sweeps + 1,
    )


def bound(rule: Rule, state: State, num_docs: Array) -> tuple[Array, Array]:
    """What the fit reports and what it raises, nats; of documents that are not empty.

    For VB both are the ELBO, with topics Dirichlet(eta + stats): of the expected log p(words,
    assignments | topics) and the topics' KL only the normalisers of the topics are left, since
    stats = lambda - eta. With the topics at their mean, the first is a lower bound of log p(words |
    topics), and the second has their log prior of eta + 1 too, but for a constant. CVB0 has no
    bound: nan, and the second as a criterion.
    """
    alpha = state.alpha
    prior = log_gamma(jnp.sum(alpha)) - jnp.sum(log_gamma(alpha))
    shares = num_docs * prior + jnp.sum(alpha * jnp.sum(state.log_shares, 0))
    value = jnp.sum(state.value) + shares
    if rule is VB:
        elbo = value + topics_bound(state)
        return elbo, elbo
    lam = state.stats + state.eta[:, None]
    total = jnp.sum(lam, 0)
    log_b = rule.log_topics(lam, total)
    given_topics = value + jnp.sum(state.stats * log_b)
    criterion = given_topics + jnp.sum(state.eta[:, None] * log_b)
    if rule is PARTLY:
        return given_topics, criterion
    return jnp.full_like(criterion, jnp.nan), criterion


def topics_bound(state: State) -> Array:
    """The topics' part of the ELBO of variational Bayes, topics Dirichlet(eta + stats), nats."""
    lam = state.stats + state.eta[:, None]
    topics = jnp.sum(log_gamma(lam)) - jnp.sum(log_gamma(jnp.sum(lam, 0)))
    of_prior = jnp.sum(log_gamma(state.eta)) - log_gamma(jnp.sum(state.eta))
    return topics - lam.shape[1] * of_prior
