"""Stacking: several starts as one guide, the mixture of theirs that is nearest to the posterior."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.diagnostics.psis import psis
from vi_jax.gaussian import over_leading
from vi_jax.types import Array

NUM_EM = 200  # steps of the weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stack:
    """sum_r w_r q_r over u [D], of guides that one method made from R starts; one of them is held
    at a time.
    """

    log_weights: Array  # [R], normalised; -inf leaves a start out
    guides: Any  # q_r, its leaves [R, ...]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]."""
        key_which, key_draws = jax.random.split(key)
        which = jax.random.categorical(key_which, self.log_weights, shape=sample_shape)

        def of(number: Array) -> Array:
            q = jax.tree.map(lambda leaf: leaf[number], self.guides)
            return q.sample(jax.random.fold_in(key_draws, number), sample_shape)

        def put(number: Array, draws: Array) -> Array:
            return jnp.where((which == number)[..., None], of(number), draws)

        return jax.lax.fori_loop(1, len(self.log_weights), put, of(jnp.int32(0)))

    def log_prob(self, value: Array) -> Array:
        """log q(u), nats, [...] for u [..., D]."""
        log_q = component_log_prob(lambda q: q, self.guides, value)
        return jax.nn.logsumexp(
            self.log_weights.reshape(-1, *[1] * (log_q.ndim - 1)) + log_q, axis=0
        )


def component_log_prob(guide_of: Callable[[Any], Any], states: Any, value: Array) -> Array:
    """log q_r(u), nats, [R, ...] for u [..., D]."""
    return jax.lax.map(lambda state: over_leading(guide_of(state).log_prob, value), states)


def stack_weights(log_p: Array, log_q: Array) -> Array:
    """The weights w of guides q_r that make E_p[log sum_r w_r q_r(u)] the highest: the mixture that
    is nearest to p in KL(p, .).

    This is stacking by the logarithmic score (Yao, Vehtari, Simpson & Gelman 2018) with the
    posterior instead of data. The expectation is taken by samples of the equal mixture,
    importance-weighted by p over that mixture and Pareto-smoothed; the weights move by
    expectation-maximisation, as in population Monte Carlo for mixtures (Cappe et al. 2008), and
    stay in the simplex. A mode that many starts found weighs no more than its mass, and a start
    that found nothing weighs nothing.

    Args:
      log_p: log p(x, u_n) at samples of the guides, as many of each, [N]; nats.
      log_q: log q_r(u_n) of every guide at every sample, [R, N].

    Returns:
      log w [R], normalised.
    """
    log_v = psis(log_p - jax.nn.logsumexp(log_q, axis=0)).log_weights  # [N]

    def em(_: Array, log_w: Array) -> Array:
        shares = jax.nn.log_softmax(log_w[:, None] + log_q, axis=0)  # of each guide in each sample
        return jax.nn.logsumexp(shares + log_v[None], axis=1)

    return jax.lax.fori_loop(
        0, NUM_EM, em, jnp.full(len(log_q), -jnp.log(float(len(log_q))), log_q.dtype)
    )
