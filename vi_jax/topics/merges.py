"""Proposals of fewer topics: pairs to merge, and topics to delete.

Where two topics are one, with their occurrences and their parts of shares added up, the ELBO of a
topic model with shares Dirichlet(alpha b) changes by (Hughes & Sudderth 2013; Hughes et al. 2015)

    the topics' marginal likelihood of their expected occurrences,
    - sum n [(r + s) log(r + s) - r log r - s log s],    the assignments' entropy,
    + sum_d log Gamma(g + h) - log Gamma(g) - log Gamma(h),    the shares,
    + N (log(alpha_k + alpha_l) - log alpha_k - log alpha_l),    their prior, by its surrogate.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.topics.blocks import Blocks
from vi_jax.topics.counts import Numpy
from vi_jax.topics.local import VB, scaled_shares, scaled_topics
from vi_jax.topics.memoized import State
from vi_jax.topics.special import log_gamma
from vi_jax.types import Array

_PAIRS = 4  # that are looked at, for each topic
_TINY = 1e-30


class Plan(NamedTuple):
    """Which topics are to go."""

    pairs: Numpy  # the second is merged into the first, the most promising pair first, [P, 2]
    deleted: Numpy  # [M]


def plans(
    blocks: Blocks, state: State, *, num_docs: float, least: float, is_still: bool
) -> list[Plan]:
    """What is to be tried, in this order, until something is kept.

    First all pairs, none of which shares a topic, by whose merge the ELBO should rise, with the
    deletion of topics of less than `least` expected tokens; then the better half of the pairs, and
    so on. What a merge changes is told before the documents have answered to it, so that the best
    pair and the deletion of the smallest topic are tried too where nothing else moves.

    Args:
      blocks: all documents.
      state: of a fit by variational Bayes.
      num_docs: N, that are not empty.
      least: expected tokens.
      is_still: whether sweeps do not change the fit any more.
    """
    pairs, gain, deleted = _candidates(blocks, state, num_docs, least)
    none = np.zeros(0, int)
    if not len(pairs):
        return []
    promising = _disjoint(pairs, gain, deleted)
    found = []
    if len(promising) or len(deleted):
        found.append(Plan(promising, np.array(deleted, int)))
    size = len(promising) // 2
    while size:
        found.append(Plan(promising[:size], none))
        size //= 2
    if is_still:
        smallest = np.argmin(np.asarray(jnp.sum(state.stats, 0)))
        found += [Plan(pairs[[np.argmax(gain)]], none), Plan(pairs[:0], np.array([smallest]))]
    return found


def _candidates(
    blocks: Blocks, state: State, num_docs: float, least: float
) -> tuple[Numpy, Numpy, list[int]]:
    """Pairs [P, 2], what each promises [P], and topics to delete."""
    mass = np.asarray(jnp.sum(state.stats, 0))
    order = np.argsort(mass, kind="stable")
    deleted = [topic for topic in order[:-1] if mass[topic] < least]
    first, second = np.triu_indices(len(mass), 1)
    if not len(first):
        return np.zeros((0, 2), int), np.zeros(0), []
    of_topics = np.asarray(_topics_gain(state))[first, second]
    chosen = np.argsort(-of_topics, kind="stable")[: _PAIRS * len(mass)]
    pairs = np.stack([first[chosen], second[chosen]], 1)
    gain = of_topics[chosen] + np.asarray(_documents_gain(blocks, state, jnp.asarray(pairs)))
    alpha = np.asarray(state.alpha, np.float64)
    kept = alpha[pairs]
    gain += num_docs * (np.log(kept.sum(1)) - np.log(kept).sum(1))
    return pairs, gain, deleted


def _disjoint(pairs: Numpy, gain: Numpy, deleted: list[int]) -> Numpy:
    """Pairs of positive gain by descending gain, none of whose topics is in another, [P, 2]."""
    taken = set(deleted)
    found = []
    for index in np.argsort(-gain, kind="stable"):
        pair = pairs[index].tolist()
        if gain[index] > 0 and taken.isdisjoint(pair):
            found.append(pair)
            taken.update(pair)
    return np.array(found, int).reshape(-1, 2)


@jax.jit
def _topics_gain(state: State) -> Array:
    """Of all pairs, in the marginal likelihood of expected occurrences, [K, K], nats."""
    eta = state.eta[:, None]
    prior = log_gamma(jnp.sum(eta)) - jnp.sum(log_gamma(eta))

    def likelihood(stats: Array) -> Array:
        """[V, K] -> [K]"""
        lam = stats + eta
        return jnp.sum(log_gamma(lam), 0) - log_gamma(jnp.sum(lam, 0)) + prior

    alone = likelihood(state.stats)
    together = jax.lax.map(lambda column: likelihood(state.stats + column[:, None]), state.stats.T)
    return together - alone - alone[:, None]


@jax.jit
def _documents_gain(blocks: Blocks, state: State, pairs: Array) -> Array:
    """Of the assignments' entropy and of the shares, [P], nats."""
    lam = state.stats + state.eta[:, None]
    total = jnp.sum(lam, 0)
    first = pairs[:, 0]
    second = pairs[:, 1]

    def one(inputs: Any) -> Array:
        block, gamma = inputs
        b, _ = scaled_topics(VB, lam.at[block.words].get(mode="clip"), total)
        e, _ = scaled_shares(VB, gamma)
        joint = b[block.ids] * e[block.doc][:, None, :]  # [S, W, K]
        shares = joint / jnp.sum(joint, -1, keepdims=True)
        r = shares[..., first]
        s = shares[..., second]
        entropy = _x_log_x(r + s) - _x_log_x(r) - _x_log_x(s)
        of_shares = log_gamma(gamma[:, first] + gamma[:, second])
        of_shares -= log_gamma(gamma[:, first]) + log_gamma(gamma[:, second])
        nonempty = block.lengths[:, None] > 0
        return jnp.sum(jnp.where(nonempty, of_shares, 0.0), 0) - jnp.einsum(
            "sw,swp->p", block.counts, entropy
        )

    return jnp.sum(jax.lax.map(one, (blocks, state.gamma)), 0)


def _x_log_x(x: Array) -> Array:
    return x * jnp.log(jnp.maximum(x, _TINY))


def apply(state: State, plan: Plan) -> tuple[State, Numpy]:
    """The state without the topics of a plan, before its next sweep, and those that are left."""
    into = plan.pairs[:, 0]
    away = plan.pairs[:, 1]
    num_topics = state.alpha.shape[0]
    gone = np.concatenate([away, plan.deleted]).astype(int)
    kept = np.setdiff1d(np.arange(num_topics), gone)

    def added(leaf: Array) -> Array:
        return leaf.at[..., into].add(leaf[..., away])

    merged = state._replace(
        stats=added(state.stats),
        gamma=added(state.gamma),
        memo=added(state.memo),
        alpha=added(state.alpha),
    )
    return select(merged, kept), kept


def select(state: State, topics: Numpy) -> State:
    """The state with some topics only, in their order."""
    return state._replace(
        stats=state.stats[:, topics],
        alpha=state.alpha[topics],
        gamma=state.gamma[..., topics],
        memo=state.memo[..., topics],
        log_shares=state.log_shares[:, topics],
    )
