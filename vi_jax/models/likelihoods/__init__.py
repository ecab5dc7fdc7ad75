"""p(x | z) from a decoder's outputs: what an element's outputs mean, and the parameters that belong
to no example.

Each factory returns a `Likelihood`; all are summed over the elements of x by `log_lik`, never
divided by them. Own parameters "per element" are one for each pixel of an image, or one for each
column of a table.
"""

from vi_jax.models.likelihoods._likelihood import Likelihood
from vi_jax.models.likelihoods.counts import (
    negative_binomial,
    poisson,
    zero_inflated_negative_binomial,
    zero_inflated_poisson,
)
from vi_jax.models.likelihoods.levels import bernoulli, categorical, discretized_logistic, ordinal
from vi_jax.models.likelihoods.mixtures import logistic_mixture
from vi_jax.models.likelihoods.real import (
    gaussian,
    gaussian_heteroscedastic,
    gaussian_learned,
    gaussian_optimal,
    gaussian_per_dimension,
    log_normal,
    student_t,
)

__all__ = [
    "Likelihood",
    "bernoulli",
    "categorical",
    "discretized_logistic",
    "gaussian",
    "gaussian_heteroscedastic",
    "gaussian_learned",
    "gaussian_optimal",
    "gaussian_per_dimension",
    "log_normal",
    "logistic_mixture",
    "negative_binomial",
    "ordinal",
    "poisson",
    "student_t",
    "zero_inflated_negative_binomial",
    "zero_inflated_poisson",
]
