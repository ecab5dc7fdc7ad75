"""The embedded topic model: topics and words in one space."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.models.documents._bag import Parts, all_words, make_model, standard_normal, start_of
from vi_jax.types import Array, Model, Params


def etm(
    num_words: int,
    *,
    num_latents: int = 50,
    hidden: int = 800,
    embedding_size: int = 300,
    embeddings: Any = None,
    background: Any = None,
) -> Model:
    """theta = softmax(z), z ~ N(0, I), words from sum_k theta_k beta_k, beta_k = softmax(rho a_k +
    m), rho the words' embeddings and a_k the topic's (Dieng et al. 2020); m, which they have not,
    begins at the log frequencies. log p is by logsumexp at the words that occur, without an
    epsilon.

    Args:
      num_words: V.
      num_latents: K topics.
      hidden: width of the encoder.
      embedding_size: of rho, where it is trained.
      embeddings: rho [V, E], which then stays.
      background: frequencies of words, where m begins, [V].

    Returns:
      A Model of documents {"ids", "counts"}.

    Raises:
      ValueError: a size is not positive, or embeddings or a background of another length.
    """
    start = start_of(background, num_words)
    fixed = None if embeddings is None else np.asarray(embeddings, np.float32)
    if fixed is not None and (fixed.ndim != 2 or len(fixed) != num_words):
        raise ValueError(
            f"embeddings need a row for each of {num_words:,} words; got shape {fixed.shape}."
        )
    size = embedding_size if fixed is None else fixed.shape[1]

    def init(key: Array) -> Params:
        key_topics, key_words = jax.random.split(key)
        scale = size**-0.5
        params = {
            "topics": scale * jax.random.normal(key_topics, (num_latents, size)),
            "background": start,
        }
        if fixed is None:
            params["words"] = jax.random.normal(key_words, (num_words, size))
        return params

    def log_probs_at(params: Params, z: Array, ids: Array) -> Array:
        rho = params["words"] if fixed is None else jnp.asarray(fixed)
        logits = params["topics"] @ rho.T + params["background"]
        log_beta = jax.nn.log_softmax(logits)[:, ids]  # [K, L]
        return jax.nn.logsumexp(jax.nn.log_softmax(z)[:, None] + log_beta, 0)

    log_probs = all_words(log_probs_at, num_words)
    parts = Parts(init, log_probs, log_probs_at, standard_normal(num_latents))
    return make_model(parts, num_words=num_words, num_latents=num_latents, hidden=hidden)
