"""Evidence of single documents over the assignments of tokens to topics, the shares integrated out:
by annealing, between two bounds for simulated documents, and exactly for documents of a few tokens.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import as_count, as_key
from vi_jax.topics.counts import Counts, Numpy, take, to_csr
from vi_jax.topics.evidence import check_words
from vi_jax.topics.simulate import simulate
from vi_jax.types import Array

MAX_EXACT = 8  # tokens of a document whose evidence is enumerated
_CHUNK = 256  # documents at once


def anneal(
    key: Array,
    fit: Any,
    counts: Counts,
    *,
    num_chains: int = 200,
    num_temperatures: int = 50,
) -> Numpy:
    """log p(words | alpha, E[beta]) of each document by annealed importance sampling of the
    assignments, the shares integrated out, nats, [N]: a lower bound in expectation (Neal 2001;
    Wallach et al. 2009, sec. 3.2).

    Chains begin at assignments from the prior; at each inverse temperature b a Gibbs sweep has
    z_n ~ (n_k of the others + alpha_k) beta_kw^b.

    Raises:
      ValueError: another vocabulary, or numbers out of range.
    """
    key = as_key(key, "anneal")
    as_count(num_chains, "num_chains")
    as_count(num_temperatures, "num_temperatures")
    check_words(fit, counts)
    indptr, indices, data = to_csr(counts)
    length = max(1, int(counts.lengths.max()))
    tokens = np.full((counts.num_docs, length), -1, np.int32)
    for doc in range(counts.num_docs):
        part = slice(indptr[doc], indptr[doc + 1])
        tokens[doc, : counts.lengths[doc]] = np.repeat(indices[part], data[part])
    log_topics = jnp.log(fit.topics_mean).T
    run = partial(_anneal, num_chains, num_temperatures)
    found = []
    for begin in range(0, counts.num_docs, _CHUNK):
        some = jnp.asarray(tokens[begin : begin + _CHUNK])
        found.append(run(jax.random.fold_in(key, begin), some, log_topics, fit.alpha))
    return np.concatenate([np.asarray(each) for each in found])


@partial(jax.jit, static_argnums=(0, 1))
def _anneal(
    num_chains: int,
    num_temperatures: int,
    key: Array,
    tokens: Array,
    log_topics: Array,
    alpha: Array,
) -> Array:
    """AIS of all documents of tokens [n, L], -1 where there is none."""
    used = tokens >= 0
    log_beta = jnp.where(used[..., None], log_topics[tokens], 0.0)  # [n, L, K]
    shape = (tokens.shape[0], num_chains)

    sweep = partial(_sweep, log_beta.swapaxes(0, 1), used.T, alpha)

    def step(carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, None]:
        z, n, log_w = carry
        key, b = inputs
        log_w = log_w + _log_lik(log_beta, z) / num_temperatures
        z, n = sweep(z, n, key, b)
        return (z, n, log_w), None

    key_start, key_steps = jax.random.split(key)
    z = jnp.full((tokens.shape[1], *shape), -1)
    n = jnp.zeros((*shape, alpha.shape[0]), alpha.dtype)
    z, n = sweep(z, n, key_start, 0.0)
    betas = jnp.arange(1, num_temperatures + 1) / num_temperatures
    keys = jax.random.split(key_steps, num_temperatures)
    start = (z, n, jnp.zeros(shape, alpha.dtype))
    (_, _, log_w), _ = jax.lax.scan(step, start, (keys, betas))
    return jax.nn.logsumexp(log_w, 1) - jnp.log(num_chains)


def _sweep(
    log_beta: Array,
    used: Array,
    alpha: Array,
    z: Array,
    n: Array,
    key: Array,
    b: Array | float,
    *,
    backwards: bool = False,
) -> tuple[Array, Array]:
    """Every token in turn, of log_beta [L, n, K] and used [L, n]: z [L, n, C] and the counts of
    topics [n, C, K]. Backwards it is the reversal, the tokens in the opposite order.
    """
    noise = jax.random.uniform(key, z.shape)
    num_topics = alpha.shape[0]
    is_topic = jnp.arange(num_topics)

    def one(n: Array, inputs: Any) -> tuple[Array, Array]:
        z, u, logits, used = inputs
        n = n - (z[..., None] == is_topic)
        weights = (n + alpha) * jnp.exp(b * logits)[:, None, :]
        cumulative = jnp.cumsum(weights, -1)
        new = jnp.sum(cumulative < (u * cumulative[..., -1])[..., None], -1)
        new = jnp.where(used[:, None], jnp.minimum(new, num_topics - 1), -1)
        return n + (new[..., None] == is_topic), new

    n, z = jax.lax.scan(one, n, (z, noise, log_beta, used), reverse=backwards)
    return z, n


def _log_lik(log_beta: Array, z: Array) -> Array:
    """log p(words | z) of log_beta [n, L, K] and z [L, n, C], -1 where there is none, [n, C]."""
    chosen = jnp.take_along_axis(log_beta.swapaxes(0, 1), jnp.maximum(z, 0), -1)
    return jnp.sum(jnp.where(z >= 0, chosen, 0.0), 0)


def bracket(
    key: Array,
    fit: Any,
    lengths: Any,
    *,
    num_chains: int = 200,
    num_temperatures: int = 50,
) -> tuple[Numpy, Numpy]:
    """log p(words) of documents simulated from a fit, between two bounds, nats, [N] each.

    The first is `anneal`, below in expectation. The second goes the way back from the assignments
    that made the words, a sample of their posterior, and is above in expectation (bidirectional
    Monte Carlo; Grosse et al. 2015). Their gap bounds the error of `anneal` on real documents of
    such lengths, as far as these are like the simulated ones.

    Args:
      lengths: tokens of each document, [N].

    Raises:
      ValueError: numbers out of range.
    """
    key_made, key_below, key_above = jax.random.split(as_key(key, "bracket"), 3)
    made = simulate(key_made, fit, lengths)
    settings = {"num_chains": num_chains, "num_temperatures": num_temperatures}
    below = anneal(key_below, fit, made.counts, **settings)
    above = _reversed(
        num_chains,
        num_temperatures,
        key_above,
        jnp.asarray(made.tokens),
        jnp.asarray(made.assignments),
        jnp.log(fit.topics_mean).T,
        fit.alpha,
    )
    return below, np.asarray(above)


@partial(jax.jit, static_argnums=(0, 1))
def _reversed(
    num_chains: int,
    num_temperatures: int,
    key: Array,
    tokens: Array,
    assignments: Array,
    log_topics: Array,
    alpha: Array,
) -> Array:
    """Reverse AIS of documents of tokens and assignments [n, L], -1 where there is none, [n]."""
    used = tokens >= 0
    log_beta = jnp.where(used[..., None], log_topics[tokens], 0.0)
    sweep = partial(_sweep, log_beta.swapaxes(0, 1), used.T, alpha, backwards=True)

    def step(carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, None]:
        z, n, log_w = carry
        key, b = inputs
        z, n = sweep(z, n, key, b)
        return (z, n, log_w + _log_lik(log_beta, z) / num_temperatures), None

    z = jnp.broadcast_to(assignments.T[..., None], (*assignments.T.shape, num_chains))
    n = jnp.sum(z[..., None] == jnp.arange(alpha.shape[0]), 0).astype(alpha.dtype)
    betas = jnp.arange(num_temperatures, 0, -1) / num_temperatures
    keys = jax.random.split(key, num_temperatures)
    start = (z, n, jnp.zeros(z.shape[1:], alpha.dtype))
    (_, _, log_w), _ = jax.lax.scan(step, start, (keys, betas))
    return jnp.log(num_chains) - jax.nn.logsumexp(-log_w, 1)


def exact(fit: Any, counts: Counts) -> Numpy:
    """log p(words | alpha, E[beta]) of documents of at most 8 tokens, nats, [N].

    By the recursion over topics and sets of tokens: the weight of a set that the first topics have
    taken is the sum over what the last of them took, each part of m tokens with the rising
    factorial of alpha_k, K 3^n terms in place of the K^n of all assignments.

    Raises:
      ValueError: a longer document, or another vocabulary.
    """
    check_words(fit, counts)
    if counts.lengths.max() > MAX_EXACT:
        raise ValueError(
            f"documents of at most {MAX_EXACT} tokens can be enumerated; one has "
            f"{counts.lengths.max():,}. Choose by counts.lengths, with vi.topics.take."
        )
    found = np.zeros(counts.num_docs)
    alpha = np.asarray(fit.alpha, np.float64)
    topics = np.asarray(fit.topics_mean, np.float64)
    for size in np.unique(counts.lengths[counts.lengths > 0]):
        docs = np.flatnonzero(counts.lengths == size)
        some = take(counts, docs)
        _, indices, data = to_csr(some)
        tokens = np.repeat(indices, data).reshape(len(docs), size)
        found[docs] = _exact(alpha, topics, tokens)
    return found


def _exact(alpha: Numpy, topics: Numpy, tokens: Numpy) -> Numpy:
    """log p of documents of one length, tokens [N, n]."""
    num_docs, size = tokens.shape
    num_sets = 2**size
    members = (np.arange(num_sets)[:, None] >> np.arange(size)) & 1  # [2^n, n]
    sizes = members.sum(1)
    weight = np.zeros((num_docs, num_sets))
    weight[:, 0] = 1.0
    for k in range(len(alpha)):
        rising = np.concatenate([[1.0], np.cumprod(alpha[k] + np.arange(size))])
        chances = topics[k, tokens]  # [N, n]
        products = np.prod(np.where(members, chances[:, None, :], 1.0), -1) * rising[sizes]
        new = np.zeros_like(weight)
        for whole in range(num_sets):
            part = whole
            while True:  # over all subsets of `whole`
                new[:, whole] += products[:, part] * weight[:, whole ^ part]
                if part == 0:
                    break
                part = (part - 1) & whole
        weight = new
    total = np.prod(alpha.sum() + np.arange(size))
    return np.log(weight[:, -1]) - np.log(total)
