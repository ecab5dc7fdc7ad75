"""Latent Dirichlet allocation with an encoder that starts the exact fixed point of the shares."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma

from vi_jax.arguments import as_count
from vi_jax.distributions import LogDirichlet
from vi_jax.kl import kl_divergence
from vi_jax.models.documents._bag import Bag, encoder, start_of
from vi_jax.types import Array, Densities, Model, Params, Terms

_LEAST = 1e-3  # of alpha, and of what the encoder puts out


def amortised_lda(
    num_words: int,
    *,
    num_latents: int = 50,
    hidden: int = 100,
    alpha: float = 0.1,
    num_iterations: int = 2,
    background: Any = None,
) -> Model:
    """theta ~ Dirichlet(alpha), words from sum_k theta_k beta_k (Blei et al. 2003), beta_k =
    softmax(B_k + m) and alpha points that are trained.

    The guide is Dirichlet(gamma). An encoder puts out where gamma begins, and `num_iterations` of
    the exact fixed point gamma_k = alpha_k + sum_w n_w phi_wk, phi_wk ~ exp(E[log theta_k])
    beta_kw, follow, the gradient through them (semi-amortised; Kim et al. 2018). The terms are
    LDA's own bound, without noise: log_lik is sum_w n_w log sum_k exp(E[log theta_k]) beta_kw, with
    the assignments at their optimum. That bound at many iterations, at the same parameters, less
    that at two is the amortisation gap: see `amortisation_gap`.

    Args:
      num_words: V.
      num_latents: K topics.
      hidden: width of the encoder.
      alpha: where alpha begins.
      num_iterations: of the fixed point.
      background: frequencies of words, where m begins, [V].

    Returns:
      A Model of documents {"ids", "counts"}; z is log theta.

    Raises:
      ValueError: a size or alpha is not positive, or a background of another length.
    """
    as_count(num_iterations, "num_iterations", least=0)
    if not alpha > 0:
        raise ValueError(f"alpha has to be positive; got {alpha}.")
    start = start_of(background, num_words)
    bag = encoder(num_words, num_latents, hidden)

    def init(key: Array) -> Params:
        key_encoder, key_topics = jax.random.split(key)
        topics = 0.5 * jax.random.normal(key_topics, (num_latents, num_words))
        return {
            **bag.init(key_encoder),
            "decoder": {
                "topics": topics,
                "background": start,
                "log_alpha": jnp.full(num_latents, math.log(alpha), start.dtype),
            },
        }

    def guide(params: Params, x: Any) -> LogDirichlet:
        begin = jax.nn.softplus(bag.apply(params, x)) + _LEAST
        return LogDirichlet(_gamma(params, x, begin, num_iterations))

    def prior(params: Params, x: Any) -> LogDirichlet:
        del x
        return LogDirichlet(_alpha(params))

    def decode(params: Params, x: Any, z: Array) -> Bag:
        log_probs = jax.nn.logsumexp(z[:, None] + _log_beta(params), 0)
        return Bag(log_probs, x["ids"], x["counts"])

    def log_lik(params: Params, x: Any, z: Array) -> Array:
        at_words = _log_beta(params)[:, x["ids"]]
        return jnp.sum(x["counts"] * jax.nn.logsumexp(z[:, None] + at_words, 0))

    def terms(key: Array, params: Params, x: Any) -> Terms:
        del key
        q = guide(params, x)
        return Terms(log_lik(params, x, q.mean), {"z": kl_divergence(q, prior(params, x))})

    def generate(key: Array, params: Params, x: Any) -> Bag:
        return decode(params, x, prior(params, x).sample(key))

    return Model(init, terms, generate, Densities(guide, prior, decode, log_lik))


def _gamma(params: Params, x: Any, begin: Array, num_iterations: int) -> Array:
    """gamma [K] of a document after some iterations from positive numbers [K] in its proportions of
    the tokens.
    """
    alpha = _alpha(params)
    beta = jnp.exp(_log_beta(params)[:, x["ids"]])  # [K, L]

    def iterate(gamma: Array, _: None) -> tuple[Array, None]:
        shares = jax.nn.softmax(digamma(gamma))
        ratio = jnp.where(x["counts"] > 0, x["counts"] / (shares @ beta), 0.0)
        return alpha + shares * (beta @ ratio), None

    gamma = alpha + jnp.sum(x["counts"]) * begin / jnp.sum(begin)
    gamma, _ = jax.lax.scan(iterate, gamma, None, length=num_iterations)
    return gamma


def _alpha(params: Params) -> Array:
    return jnp.exp(params["decoder"]["log_alpha"]) + _LEAST


def _log_beta(params: Params) -> Array:
    """[K, V]"""
    decoder = params["decoder"]
    return jax.nn.log_softmax(decoder["topics"] + decoder["background"])


def amortisation_gap(
    params: Params, rows: Any, *, num_latents: int, num_iterations: int = 2, most: int = 200
) -> Array:
    """Nats of each document between the bound at the end of the fixed point and that after
    `num_iterations` from the encoder, at the same parameters, [N].

    Args:
      params: of `amortised_lda`.
      rows: {"ids": [N, L], "counts": [N, L]}.
      num_latents: K.
      num_iterations: of the model.
      most: iterations that count as the end.
    """
    num_words, hidden = params["words"].shape

    def bound(iterations: int) -> Array:
        settings = {"num_latents": num_latents, "hidden": hidden, "num_iterations": iterations}
        model = amortised_lda(num_words, **settings)
        key = jax.random.key(0)  # the terms have no noise

        def one(x: Any) -> Array:
            found = model.terms(key, params, x)
            return found.log_lik - found.kl["z"]

        return jax.vmap(one)(rows)

    return bound(most) - bound(num_iterations)
