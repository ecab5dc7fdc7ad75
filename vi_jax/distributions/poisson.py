"""The Poisson distribution by its log rate."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from vi_jax.distributions.special import count_log_factor

Array = jax.Array

_NORMAL_FROM = 1e7  # rates from which samples are a rounded Gaussian's: skewness below 4e-4


class Poisson(dist.Distribution):
    """Poisson by the logarithm of its rate, l: log p(x) = x l - e^l - log x!.

    Parts from numpyro's, which takes the rate: that underflows to 0 at l = -104, with log p = -inf
    and a gradient of nan, and x l - log x! has no digits left at counts of 1e6. Here, by Loader
    (2000, eq. 4), with R the remainder of Stirling's formula and d = l - log x,

        log p(x) = -1/2 log(2 pi x) - R(x) - x (e^d - 1 - d)    for x > 0, and -e^l for x = 0.

    Samples are floats, so that no rate is too large for an integer.

    Args:
      log_rate: any shape; the batch shape.
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer
    pytree_data_fields = ("log_rate",)

    def __init__(self, log_rate: Array, *, validate_args: bool | None = None) -> None:
        self.log_rate = jnp.asarray(log_rate)
        super().__init__(batch_shape=self.log_rate.shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log p(value), elementwise."""
        value = jnp.asarray(value, self.log_rate.dtype)
        is_zero = value <= 0
        x = jnp.where(is_zero, 1.0, value)
        gap = self.log_rate - jnp.log(x)
        of_positive = -count_log_factor(x) - x * (jnp.expm1(gap) - gap)
        return jnp.where(is_zero, -jnp.exp(self.log_rate), of_positive)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Counts as floats, [*sample_shape, *batch_shape]."""
        log_rate = jnp.broadcast_to(self.log_rate, (*sample_shape, *self.batch_shape))
        return sample_poisson(key, log_rate)

    @property
    def mean(self) -> Array:
        """e^l."""
        return jnp.exp(self.log_rate)

    @property
    def variance(self) -> Array:
        """e^l."""
        return jnp.exp(self.log_rate)


def sample_poisson(key: Array, log_rate: Array) -> Array:
    """One count for each log rate, as floats; rates above 1e7 by a rounded Gaussian."""
    key_small, key_large = jax.random.split(key)
    rate = jnp.exp(log_rate)
    small = jax.random.poisson(key_small, jnp.minimum(rate, _NORMAL_FROM)).astype(rate.dtype)
    noise = jax.random.normal(key_large, rate.shape, rate.dtype)
    return jnp.where(rate > _NORMAL_FROM, jnp.round(rate + jnp.sqrt(rate) * noise), small)
