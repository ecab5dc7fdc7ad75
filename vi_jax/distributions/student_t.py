"""Student's t distribution, near its Gaussian limit too."""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.util import validate_sample

from vi_jax.distributions.special import stirling_remainder

Array = jax.Array

_LARGE = 1e4  # t from which log(1 + t^2) is 2 log t + t^-2


class StudentT(dist.StudentT):
    """numpyro's Student-t with a density that keeps its digits for many degrees of freedom, and far
    from the centre.

    There log Gamma((df + 1) / 2) - log Gamma(df / 2) has none left at df = 1e6, and the square of
    the distance overflows. With a = df / 2 and R the remainder of Stirling's formula, the
    difference is a log(1 + 1 / (2 a)) + 1/2 log a - 1/2 + R(a + 1/2) - R(a).
    """

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log p(value), elementwise."""
        half = 0.5 * self.df
        remainders = stirling_remainder(half + 0.5) - stirling_remainder(half)
        # log Gamma(a + 1/2) - log Gamma(a) - 1/2 log a
        log_gammas = half * jnp.log1p(0.5 / half) - 0.5 + remainders
        log_constant = log_gammas - 0.5 * math.log(2.0 * math.pi) - jnp.log(self.scale)
        t = (value - self.loc) / (self.scale * jnp.sqrt(self.df))
        return log_constant - (half + 0.5) * _log1p_square(t)


def _log1p_square(t: Array) -> Array:
    """log(1 + t^2), for t whose square overflows too."""
    is_large = jnp.abs(t) > _LARGE
    small = jnp.where(is_large, 0.0, t)
    large = jnp.where(is_large, jnp.abs(t), 1.0)
    return jnp.where(is_large, 2.0 * jnp.log(large), jnp.log1p(small**2))
