"""Densities that numpyro.distributions lacks or gets wrong; everything else is taken from there as
it stands.

All are pytrees with `sample(key, sample_shape)` and `log_prob(value)`, in nats; all but `Program`
and `Stack` are numpyro distributions.
"""

import warnings
from typing import Any

from vi_jax.distributions.counts import Bernoulli, Binomial
from vi_jax.distributions.discretized_logistic import DiscretizedLogistic
from vi_jax.distributions.guide import GuideDistribution, from_guide
from vi_jax.distributions.log_gamma import LogDirichlet, LogGamma
from vi_jax.distributions.logistic_mixture import LogisticMixture
from vi_jax.distributions.negative_binomial import NegativeBinomial
from vi_jax.distributions.one_hot import OneHotCategorical
from vi_jax.distributions.ordered_logistic import OrderedLogistic
from vi_jax.distributions.poisson import Poisson
from vi_jax.distributions.precision_normal import PrecisionNormal
from vi_jax.distributions.program import Program, paired
from vi_jax.distributions.stack import Stack
from vi_jax.distributions.student_t import StudentT
from vi_jax.distributions.transports import from_noise, to_noise
from vi_jax.distributions.von_mises import VonMises
from vi_jax.distributions.zero_inflated import ZeroInflated

__all__ = [
    "Bernoulli",
    "Binomial",
    "DiscretizedLogistic",
    "GuideDistribution",
    "LogDirichlet",
    "LogGamma",
    "LogisticMixture",
    "NegativeBinomial",
    "OneHotCategorical",
    "OrderedLogistic",
    "Poisson",
    "PrecisionNormal",
    "Program",
    "Stack",
    "StudentT",
    "VonMises",
    "ZeroInflated",
    "from_guide",
    "from_noise",
    "paired",
    "to_noise",
]


def __getattr__(name: str) -> Any:
    if name == "Layers":
        warnings.warn(
            "distributions.Layers is now distributions.Program, which names its latents; the "
            "old name goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        from vi_jax.distributions.layers import Layers

        return Layers
    raise AttributeError(f"vi_jax.distributions has no {name!r}; it has {', '.join(__all__)}.")
