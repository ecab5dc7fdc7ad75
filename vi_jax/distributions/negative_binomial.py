"""The negative binomial distribution by its log mean and log dispersion."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from vi_jax.distributions.poisson import sample_poisson
from vi_jax.distributions.special import count_log_factor, stirling_remainder

Array = jax.Array


class NegativeBinomial(dist.Distribution):
    """Counts of mean mu and variance mu + mu^2 / r: a Poisson whose rate is a Gamma of shape r
    (Hilbe 2011, eq. 8.1; NB2).

        p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + mu))^r (mu / (r + mu))^x

    Parts from numpyro's NegativeBinomial2 where Gamma functions cancel: at r = 1e6 or counts of 1e6
    those have no digits left. Here the binomial's saddle-point form (Loader 2000, eq. 3 and 8),
    with R the remainder of Stirling's formula and s = (x + r) / (mu + r):

        log p(x) = 1/2 log(r / (x + r)) - 1/2 log(2 pi x) + R(x + r) - R(r) - R(x)
                   - r (s - 1 - log s) - x (t - 1 - log t),    t = s mu / x, for x > 0.

    Args:
      log_mean: log mu.
      log_dispersion: log r; r to infinity is the Poisson.
    """

    arg_constraints = {  # noqa: RUF012
        "log_mean": constraints.real,
        "log_dispersion": constraints.real,
    }
    support = constraints.nonnegative_integer
    pytree_data_fields = ("log_mean", "log_dispersion")

    def __init__(
        self, log_mean: Array, log_dispersion: Array, *, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.log_dispersion = promote_shapes(
            jnp.asarray(log_mean), jnp.asarray(log_dispersion)
        )
        shape = jnp.broadcast_shapes(jnp.shape(log_mean), jnp.shape(log_dispersion))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log p(value), elementwise."""
        value = jnp.asarray(value, self.log_mean.dtype)
        mean = jnp.exp(self.log_mean)
        r = jnp.exp(self.log_dispersion)
        is_zero = value <= 0
        x = jnp.where(is_zero, 1.0, value)
        log_s = _log_ratio_of_sums(x, self.log_mean, mean, self.log_dispersion, r)
        log_t = log_s + self.log_mean - jnp.log(x)
        log_share = -jax.nn.softplus(jnp.log(x) - self.log_dispersion)  # log(r / (x + r))
        remainders = stirling_remainder(x + r) - stirling_remainder(r)
        deviance = r * (jnp.expm1(log_s) - log_s) + x * (jnp.expm1(log_t) - log_t)
        of_positive = 0.5 * log_share - count_log_factor(x) + remainders - deviance
        of_zero = -r * jax.nn.softplus(self.log_mean - self.log_dispersion)
        return jnp.where(is_zero, of_zero, of_positive)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Counts as floats, [*sample_shape, *batch_shape]."""
        key_rate, key_count = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        log_gamma = jax.random.loggamma(key_rate, jnp.exp(self.log_dispersion), shape)
        return sample_poisson(key_count, self.log_mean + log_gamma - self.log_dispersion)

    @property
    def mean(self) -> Array:
        """mu."""
        return jnp.broadcast_to(jnp.exp(self.log_mean), self.batch_shape)

    @property
    def variance(self) -> Array:
        """mu + mu^2 / r."""
        return self.mean + jnp.exp(2.0 * self.log_mean - self.log_dispersion)


def _log_ratio_of_sums(x: Array, log_mean: Array, mean: Array, log_r: Array, r: Array) -> Array:
    """log((x + r) / (mu + r)), right where x is near mu, and where r is far above both."""
    step = (x - mean) / (mean + r)
    near = jnp.abs(step) < 0.5
    direct = jnp.logaddexp(jnp.log(x), log_r) - jnp.logaddexp(log_mean, log_r)
    return jnp.where(near, jnp.log1p(jnp.where(near, step, 0.0)), direct)
