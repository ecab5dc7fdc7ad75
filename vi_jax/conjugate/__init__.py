"""Conjugate-exponential models, whose updates are closed-form: no step sizes, no gradients of the
ELBO.

    fit = conjugate.gaussian_mixture.fit(key, x, num_components=3)  # coordinate ascent
    fit = conjugate.lda.fit(key, x, num_topics=3, num_words=40)  # topics of documents
    fit = conjugate.linear_regression.fit(x, y)  # automatic relevance determination
    fit = conjugate.logistic_regression.fit(x, y)  # by the Jaakkola-Jordan bound
    fit = conjugate.ep.fit(x, y, conjugate.ep.probit)  # expectation propagation, which is no bound
    fit = conjugate.em(key, model, x, num_iterations=40)  # of a model with an update of its own
    state = conjugate.svi.fit(key, model, x, start, batch_size=100, num_steps=1000)

A model is a `Model` of `engine`; `cavi` and `svi` run any of them by pure `init` and `step`, one of
your own too.
"""

from vi_jax.conjugate import (
    cavi,
    engine,
    ep,
    factors,
    gaussian_mixture,
    lda,
    linear_regression,
    logistic_regression,
    mixtures,
    normal_gamma_mixture,
    svi,
)
from vi_jax.conjugate.em import em

__all__ = [
    "cavi",
    "em",
    "engine",
    "ep",
    "factors",
    "gaussian_mixture",
    "lda",
    "linear_regression",
    "logistic_regression",
    "mixtures",
    "normal_gamma_mixture",
    "svi",
]
