"""SCHOLAR: a product of topics with covariates of documents."""

from typing import Any

import jax.numpy as jnp

from vi_jax.arguments import as_count
from vi_jax.models.documents._bag import make_model
from vi_jax.models.documents.prodlda import product_of_topics
from vi_jax.types import Array, Model, Params


def scholar(
    num_words: int,
    num_covariates: int,
    *,
    num_latents: int = 50,
    hidden: int = 100,
    alpha: float = 0.02,
    background: Any = None,
) -> Model:
    """theta = softmax(z), words from softmax(theta' B + m + c' D): ProdLDA with a deviation D_j [V]
    of the words' log frequencies for each covariate c_j of a document, which the encoder sees too
    (Card et al. 2018, eqs. 2 and 6, without interactions of topics and covariates and without
    predicted labels). D and the encoder's weights of the covariates begin at 0, where the model is
    ProdLDA with the same parameters. A label is given as a covariate for each class, 1 or 0.

    Args:
      num_words: V.
      num_covariates: C.
      num_latents: K topics.
      hidden: width of the encoder.
      alpha: of the Dirichlet that the prior approximates.
      background: frequencies of words, where m begins, [V].

    Returns:
      A Model of documents {"ids" [L], "counts" [L], "covariates" [C]}; `decoder.deviations` of its
      parameters is D [C, V].

    Raises:
      ValueError: a size or alpha is not positive, or a background of another length.
    """
    as_count(num_covariates, "num_covariates", what="C")
    product = product_of_topics(num_words, num_latents, alpha, background)

    def init(key: Array) -> Params:
        return {**product.init(key), "deviations": jnp.zeros((num_covariates, num_words))}

    return make_model(
        product._replace(init=init),
        num_words=num_words,
        num_latents=num_latents,
        hidden=hidden,
        num_covariates=num_covariates,
    )
