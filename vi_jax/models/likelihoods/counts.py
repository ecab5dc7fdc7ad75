"""Likelihoods of counts. The first output is always the log of the mean (of the base's mean, where
zeros are inflated), so that an exposure e is an offset: log e added to it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import gammaln

from vi_jax.distributions import NegativeBinomial, Poisson, ZeroInflated
from vi_jax.models.likelihoods._likelihood import (
    Likelihood,
    filled,
    no_parameters,
    require_positive,
)
from vi_jax.types import Array, Params


def poisson(*, link: Callable[[Array], Array] | None = None) -> Likelihood:
    """x = 0, 1, 2, ... by a Poisson, its log rate from the decoder: variance = mean.

    Args:
      link: makes the rate from the output instead, such as `jax.nn.softplus`, whose rates do not
        explode; an exposure is no offset then.
    """
    if link is None:
        return Likelihood(
            1,
            no_parameters,
            lambda _, outputs: Poisson(outputs[..., 0]),
            support="count",
            expected=_expected_poisson,
        )
    return Likelihood(
        1,
        no_parameters,
        lambda _, outputs: Poisson(jnp.log(link(outputs[..., 0]))),
        support="count",
    )


def _expected_poisson(own: Params, x: Array, mean: Array, variance: Array) -> Array:
    """x m - e^(m + v / 2) - log x!"""
    del own
    return x * mean - jnp.exp(mean + 0.5 * variance) - gammaln(x + 1.0)


def negative_binomial(dispersion_init: Any = 1.0) -> Likelihood:
    """x = 0, 1, 2, ... by a negative binomial, its log mean from the decoder: variance = mean +
    mean^2 / r, log r trained, one for each element (Hilbe 2011, eq. 8.1; Lopez et al. 2018,
    methods).

    Args:
      dispersion_init: where r starts, a number or an array [*x_shape].

    Raises:
      ValueError: it is not positive.
    """
    return Likelihood(1, _log_dispersion(dispersion_init), _negative_binomial, support="count")


def zero_inflated_poisson() -> Likelihood:
    """0 with a probability pi, else by a Poisson; log rate and logit of pi from the decoder
    (Lambert 1992, eq. 1).
    """

    def make(params: Params, outputs: Array) -> ZeroInflated:
        del params
        return ZeroInflated(Poisson(outputs[..., 0]), outputs[..., 1])

    return Likelihood(2, no_parameters, make, support="count")


def zero_inflated_negative_binomial(dispersion_init: Any = 1.0) -> Likelihood:
    """0 with a probability pi, else by a negative binomial; log mean and logit of pi from the
    decoder, log r trained, one for each element (Lopez et al. 2018, eq. 3).

    Arguments and errors as for `negative_binomial`.
    """

    def make(params: Params, outputs: Array) -> ZeroInflated:
        return ZeroInflated(_negative_binomial(params, outputs), outputs[..., 1])

    return Likelihood(2, _log_dispersion(dispersion_init), make, support="count")


def _negative_binomial(params: Params, outputs: Array) -> NegativeBinomial:
    return NegativeBinomial(outputs[..., 0], params["log_dispersion"])


def _log_dispersion(dispersion_init: Any) -> Any:
    require_positive("a negative binomial", "dispersion_init", dispersion_init)

    def init(x_shape: tuple[int, ...]) -> Params:
        return {"log_dispersion": jnp.log(filled(dispersion_init, x_shape))}

    return init
