"""Densities that numpyro.distributions lacks or gets wrong; everything else is taken from there as
it stands.

All are pytrees with `sample(key, sample_shape)` and `log_prob(value)`, in nats; all but `Layers`
are numpyro distributions.
"""

from vi_jax.distributions.counts import Bernoulli, Binomial
from vi_jax.distributions.discretized_logistic import DiscretizedLogistic
from vi_jax.distributions.layers import Layers, from_noise, to_noise
from vi_jax.distributions.log_gamma import LogDirichlet, LogGamma
from vi_jax.distributions.one_hot import OneHotCategorical
from vi_jax.distributions.precision_normal import PrecisionNormal
from vi_jax.distributions.von_mises import VonMises

__all__ = [
    "Bernoulli",
    "Binomial",
    "DiscretizedLogistic",
    "Layers",
    "LogDirichlet",
    "LogGamma",
    "OneHotCategorical",
    "PrecisionNormal",
    "VonMises",
    "from_noise",
    "to_noise",
]
