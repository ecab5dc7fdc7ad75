"""The neural variational document model and its Gaussian-softmax kin."""

from typing import Any

import jax

from vi_jax.models.documents._bag import Parts, make_model, standard_normal, start_of
from vi_jax.types import Array, Model, Params


def nvdm(
    num_words: int,
    *,
    num_latents: int = 50,
    hidden: int = 500,
    shares: bool = False,
    background: Any = None,
) -> Model:
    """z ~ N(0, I), words from softmax(z' B + m) (Miao et al. 2016), m begun at the log frequencies.

    Args:
      num_words: V.
      num_latents: K.
      hidden: width of the encoder.
      shares: softmax(W z) in the place of z, so that there are topics (the Gaussian softmax of Miao
        et al. 2017, in a product of topics).
      background: frequencies of words, where m begins, [V].

    Returns:
      A Model of documents {"ids", "counts"}.

    Raises:
      ValueError: a size is not positive, or a background of another length.
    """
    start = start_of(background, num_words)

    def init(key: Array) -> Params:
        key_topics, key_mix = jax.random.split(key)
        params = {
            "topics": 0.1 * jax.random.normal(key_topics, (num_latents, num_words)),
            "background": start,
        }
        if shares:
            params["mix"] = jax.random.normal(key_mix, (num_latents, num_latents))
        return params

    def log_probs(params: Params, z: Array) -> Array:
        weights = jax.nn.softmax(z @ params["mix"]) if shares else z
        return jax.nn.log_softmax(weights @ params["topics"] + params["background"])

    def log_probs_at(params: Params, z: Array, ids: Array) -> Array:
        return log_probs(params, z)[ids]

    parts = Parts(init, log_probs, log_probs_at, standard_normal(num_latents))
    return make_model(parts, num_words=num_words, num_latents=num_latents, hidden=hidden)
