"""The E-step of topic models: the topics' shares of documents, by one fixed point for variational
Bayes, partly collapsed variational Bayes and CVB0.

With e_d = f(gamma_d) and b_w = g(lambda)_w, [K] each (Hoffman et al. 2010, sec. 2.2; Asuncion et
al. 2009),

    gamma_d <- alpha + e_d sum_w (n_dw / <e_d, b_w>) b_w,
    stats_w <- b_w sum_d (n_dw / <e_d, b_w>) e_d,   lambda_w <- eta + stats_w.

A factor of e_d that is one number a document, or of b_w that is one number a word, cancels: both
are scaled to a largest entry of 1, and no epsilon is needed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.topics.special import log_gamma, psi
from vi_jax.types import Array

_TO_THE_END = 200  # iterations of a fixed point, at most
_AT_REST = 1e-5  # the largest move of a document's shares at the end of it


class Rule(NamedTuple):
    """f and g: what stands for a document's shares and for a topic's words."""

    name: str
    log_shares: Callable[[Array], Array]  # gamma [..., K] -> log e but for a constant a document
    log_topics: Callable[
        [Array, Array], Array
    ]  # (lambda [..., K], its sums over words [K]) -> log b


def _log_mean(lam: Array, total: Array) -> Array:
    return jnp.log(lam) - jnp.log(total)


def _expected_log(lam: Array, total: Array) -> Array:
    return psi(lam) - psi(total)


# variational Bayes (Blei et al. 2003); its bound is the ELBO
VB = Rule("vb", psi, _expected_log)
# the topics at their posterior mean, the shares variational: variational EM for the topics' mode
# under Dirichlet(eta + 1)
PARTLY = Rule("partly", psi, _log_mean)
# zero-order collapsed variational Bayes without self-exclusion (Asuncion et al. 2009; Foulds et al.
# 2013), the log posterior's fixed point at alpha + 1 and eta + 1
CVB0 = Rule("cvb0", jnp.log, _log_mean)


class Local(NamedTuple):
    """Documents of one block after their fixed point."""

    gamma: Array  # [D, K]
    stats: Array  # expected occurrences of the block's words by topic, [U, K]
    # sum over words of n log <e, b>, with e and b as the rule has them, less the expected log b;
    # and the part of -KL(q(theta), p(theta)) that alpha has no part in: nats, [D]
    value: Array
    log_shares: Array  # E[log theta] under Dirichlet(gamma), [D, K]


def scaled_topics(rule: Rule, lam: Array, total: Array) -> tuple[Array, Array]:
    """b [U, K] with a largest entry of 1 a word, and the log of what it was divided by [U]."""
    log_b = rule.log_topics(lam, total)
    shift = jnp.max(log_b, -1)
    return jnp.exp(log_b - shift[:, None]), shift


def scaled_shares(rule: Rule, gamma: Array) -> tuple[Array, Array]:
    """e [D, K] with a largest entry of 1 a document, and the log of what it was divided by [D]."""
    log_e = rule.log_shares(gamma)
    shift = jnp.max(log_e, -1)
    e = jnp.exp(log_e - shift[:, None])
    # computed once, not again inside whatever reads it (a third of an iteration's time)
    return jax.lax.optimization_barrier(e), shift


def fixed_point(
    rule: Rule,
    block: Any,
    b: Array,
    alpha: Array,
    gamma: Array,
    *,
    num_iterations: int,
    tolerance: float = 0.0,
) -> tuple[Array, Array]:
    """gamma [D, K] after some iterations, and the largest move of a document in the last one.

    Args:
      rule: f and g.
      block: one block of documents (`blocks.Blocks` without its first axis).
      b: the topics at the block's words, scaled, [U, K].
      alpha: the prior of shares, [K].
      gamma: where to begin, [D, K].
      num_iterations: at most.
      tolerance: stop when no document's shares move by more, summed over topics; 0 for all
        iterations.
    """
    gathered = b[block.ids]  # [S, W, K]
    num_docs = gamma.shape[0]
    length = jnp.maximum(jnp.sum(alpha) + block.lengths, 1e-30)

    def iterate(gamma: Array) -> Array:
        e, _ = scaled_shares(rule, gamma)
        of_segments = e[block.doc]
        norm = jnp.einsum("swk,sk->sw", gathered, of_segments)
        ratio = jnp.where(block.counts > 0, block.counts / norm, 0.0)
        found = jnp.einsum("sw,swk->sk", ratio, gathered)
        summed = jax.ops.segment_sum(found, block.doc, num_docs, indices_are_sorted=True)
        return alpha + e * summed

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, moved, number = carry
        return (number < num_iterations) & (moved > tolerance)

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        gamma, _, number = carry
        new = iterate(gamma)
        moved = jnp.max(jnp.sum(jnp.abs(new - gamma), -1) / length)
        return new, moved, number + 1

    start = (gamma, jnp.full((), jnp.inf, gamma.dtype), jnp.int32(0))
    gamma, moved, _ = jax.lax.while_loop(unfinished, body, start)
    return gamma, moved


@partial(jax.jit, static_argnums=0)
def shares_of_blocks(rule: Rule, blocks: Any, topics: Array, alpha: Array) -> Array:
    """The fixed point of every document given topics [V, K], to the end: gamma [B, D, K]."""
    total = jnp.sum(topics, 0)

    def one(block: Any) -> Array:
        b, _ = scaled_topics(rule, topics.at[block.words].get(mode="clip"), total)
        start = alpha + block.lengths[:, None] / alpha.shape[0]
        gamma, _ = fixed_point(
            rule,
            block,
            b,
            alpha,
            start,
            num_iterations=_TO_THE_END,
            tolerance=_AT_REST,
        )
        return gamma

    return jax.lax.map(one, blocks)


def summarise(rule: Rule, block: Any, b: Array, shift: Array, gamma: Array) -> Local:
    """Statistics and the bound's terms of a block at gamma [D, K], the assignments at their
    optimum.
    """
    num_docs = gamma.shape[0]
    e, log_scale = scaled_shares(rule, gamma)
    of_segments = e[block.doc]
    norm = jnp.einsum("swk,sk->sw", b[block.ids], of_segments)
    used = block.counts > 0
    norm = jnp.where(used, norm, 1.0)
    ratio = block.counts / norm
    # 1. by word: rows of the transpose, then the rows of one word
    flat = jnp.append(ratio.ravel(), 0.0)
    parts = jnp.einsum("tp,tpk->tk", flat[block.cell], e[block.cell_doc])
    summed = jax.ops.segment_sum(parts, block.cell_word, b.shape[0], indices_are_sorted=True)
    stats = b * summed
    # 2. sum_w n log <e, b> without the word's shift, which is in the expected log b of the caller
    of_words = jnp.sum(block.counts * (jnp.log(norm) + shift[block.ids]), -1)
    of_words = jax.ops.segment_sum(of_words, block.doc, num_docs, indices_are_sorted=True)
    normaliser = psi(jnp.sum(gamma, -1))
    log_shares = psi(gamma) - normaliser[:, None]
    value = of_words + block.lengths * (log_scale - normaliser)
    value += jnp.sum(log_gamma(gamma), -1) - log_gamma(jnp.sum(gamma, -1))
    value -= jnp.sum(gamma * log_shares, -1)
    nonempty = block.lengths > 0
    value = jnp.where(nonempty, value, 0.0)
    return Local(gamma, stats, value, jnp.where(nonempty[:, None], log_shares, 0.0))
