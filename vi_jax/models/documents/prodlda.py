"""ProdLDA: a product of topics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.arguments import as_count
from vi_jax.models.documents._bag import Parts, make_model, start_of
from vi_jax.types import Array, Model, Params


def prodlda(
    num_words: int,
    *,
    num_latents: int = 50,
    hidden: int = 100,
    alpha: float = 0.02,
    background: Any = None,
) -> Model:
    """theta = softmax(z), words from softmax(theta' B + m) with B [K, V] unbounded (Srivastava &
    Sutton 2017), m the trained log frequencies of the corpus in the place of their batch
    normalisation (as SAGE and SCHOLAR have it; Eisenstein et al. 2011, Card et al. 2018).

    The prior of z is the Laplace approximation of Dirichlet(alpha) in the softmax basis (their eq.
    4): N(0, (1 - 2/K) / alpha + 1 / (K alpha)).

    Args:
      num_words: V.
      num_latents: K topics.
      hidden: width of the encoder.
      alpha: of the Dirichlet that the prior approximates.
      background: frequencies of words, where m begins, [V].

    Returns:
      A Model of documents {"ids", "counts"}.

    Raises:
      ValueError: a size or alpha is not positive, or a background of another length.
    """
    parts = product_of_topics(num_words, num_latents, alpha, background)
    return make_model(parts, num_words=num_words, num_latents=num_latents, hidden=hidden)


def product_of_topics(num_words: int, num_latents: int, alpha: float, background: Any) -> Parts:
    """The decoder and the prior of `prodlda`; arguments and errors are its own."""
    as_count(num_latents, "num_latents", what="K")
    if not alpha > 0:
        raise ValueError(f"alpha has to be positive; got {alpha}.")
    start = start_of(background, num_words)
    variance = (1.0 - 2.0 / num_latents) / alpha + 1.0 / (num_latents * alpha)

    def init(key: Array) -> Params:
        size = (num_latents, num_words)
        return {"topics": 0.5 * jax.random.normal(key, size), "background": start}

    def log_probs(params: Params, z: Array) -> Array:
        return jax.nn.log_softmax(jax.nn.softmax(z) @ params["topics"] + params["background"])

    def log_probs_at(params: Params, z: Array, ids: Array) -> Array:
        return log_probs(params, z)[ids]

    prior = dist.Normal(jnp.zeros(num_latents), jnp.sqrt(variance)).to_event(1)
    return Parts(init, log_probs, log_probs_at, prior)
