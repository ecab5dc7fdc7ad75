"""Closed forms of KL(q || p) over finite sets: by logits, by probabilities, or one by each; nats,
of the broadcast batch shape.

A value that q never takes adds 0 whatever p gives it, and passes no gradient; one that p alone
never takes makes the KL inf.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.distributions import OneHotCategorical

Array = jax.Array


def _terms(probs: Array, log_q: Array, log_p: Array) -> Array:
    """x (log x - log y) elementwise, 0 where x is 0."""
    seen = probs > 0
    gap = jnp.where(seen, log_q, 0.0) - jnp.where(seen, log_p, 0.0)
    return jnp.where(seen, probs * gap, 0.0)


def _bernoulli(q: Any, p: Any) -> Array:
    """sigmoid(a) (a - b) - softplus(a) + softplus(b) for logits a of q and b of p; else by the two
    probabilities and their logs.
    """
    if isinstance(q, dist.BernoulliLogits) and isinstance(p, dist.BernoulliLogits):
        a = q.logits
        b = p.logits
        return jax.nn.sigmoid(a) * (a - b) - jax.nn.softplus(a) + jax.nn.softplus(b)
    one_q, zero_q, log_one_q, log_zero_q = _two_sides(q)
    log_one_p, log_zero_p = _log_sides(p, one_q > 0, zero_q > 0)
    return _terms(one_q, log_one_q, log_one_p) + _terms(zero_q, log_zero_q, log_zero_p)


def _two_sides(d: Any) -> tuple[Array, Array, Array, Array]:
    """P(1), P(0) and their logs."""
    if isinstance(d, dist.BernoulliLogits):
        return jax.nn.sigmoid(d.logits), jax.nn.sigmoid(-d.logits), *_log_sides(d, True, True)
    one = jnp.asarray(d.probs)
    zero = 1.0 - d.probs
    return one, zero, *_log_sides(d, one > 0, zero > 0)


def _log_sides(d: Any, wants_one: Any, wants_zero: Any) -> tuple[Array, Array]:
    """log P(1) and log P(0) where wanted: where not, no log of 0 is taken, so that no gradient of
    it is inf * 0.
    """
    if isinstance(d, dist.BernoulliLogits):
        return jax.nn.log_sigmoid(d.logits), jax.nn.log_sigmoid(-d.logits)
    return jnp.log(jnp.where(wants_one, d.probs, 0.5)), jnp.log1p(
        -jnp.where(wants_zero, d.probs, 0.5)
    )


def _categorical(q: Any, p: Any) -> Array:
    """sum_c q_c (log q_c - log p_c)."""
    probs = jax.nn.softmax(q.logits, axis=-1) if _by_logits(q) else jnp.asarray(q.probs)
    seen = probs > 0
    return _terms(probs, _log_probs(q, seen), _log_probs(p, seen)).sum(-1)


def _by_logits(d: Any) -> bool:
    return isinstance(d, dist.CategoricalLogits | OneHotCategorical)


def _log_probs(d: Any, wanted: Array) -> Array:
    return (
        jax.nn.log_softmax(d.logits, axis=-1)
        if _by_logits(d)
        else jnp.log(jnp.where(wanted, d.probs, 1.0))
    )


BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)
CATEGORICAL = (dist.CategoricalLogits, dist.CategoricalProbs)
RULES: list[tuple[Any, Any, Callable[[Any, Any], Array]]] = [
    (BERNOULLI, BERNOULLI, _bernoulli),
    (CATEGORICAL, CATEGORICAL, _categorical),
    (OneHotCategorical, OneHotCategorical, _categorical),
]
