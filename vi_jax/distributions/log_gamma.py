"""Logarithms of Gamma and Dirichlet variates, for concentrations at which the variates themselves
are 0 in floating point.

At a concentration of 0.001 half of all Gamma samples are below e^-690: zeros in float32, with log
densities of +inf. Their logarithms are ordinary numbers. `jax.random.loggamma` draws them well but
clips its derivative at the smallest float, which leaves a twelfth of the slope there; here the
derivative is that of log x = log x' + (log u) / a, with x' ~ Gamma(a + 1) and u uniform, for a < 1.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln, polygamma
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from vi_jax.distributions.special import stirling_remainder

Array = jax.Array

_HALF_LOG_TWO_PI = 0.9189385332046727


def sample_log_gamma(key: Array, concentration: Array) -> Array:
    """log x for x ~ Gamma(a, 1), reparameterised in a: one sample for each a, of its shape; finite
    for a down to 1e-35 in float32.
    """
    key_gamma, key_boost = jax.random.split(key)
    a = jnp.asarray(concentration, jnp.result_type(float, concentration))
    small = a < 1.0
    raised = jnp.where(small, a + 1.0, a)
    boost = jax.random.exponential(key_boost, a.shape, a.dtype) / jnp.where(small, a, 1.0)
    return jax.random.loggamma(key_gamma, raised, dtype=a.dtype) - jnp.where(small, boost, 0.0)


class LogGamma(dist.Distribution):
    """y = log x with x ~ Gamma(a, b): log p(y) = a log b - log Gamma(a) + a y - b e^y, the Jacobian
    e^y included.

    Its KL from another LogGamma is the Gammas' own. With d = y + log b - log a the density is
    evaluated as a (d - (e^d - 1)) + 1/2 log(a / 2 pi) - R(a), R being Stirling's remainder: no
    digits cancel at large a.

    Args:
      concentration: a, positive, any shape that broadcasts with `rate`.
      rate: b, positive, the inverse scale.
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}  # noqa: RUF012
    support = constraints.real
    reparametrized_params = ["concentration", "rate"]  # noqa: RUF012

    def __init__(
        self, concentration: Array, rate: Array | float = 1.0, *, validate_args: bool | None = None
    ) -> None:  # type: ignore[assignment]
        self.concentration, self.rate = promote_shapes(concentration, rate)
        batch_shape = jnp.broadcast_shapes(jnp.shape(concentration), jnp.shape(rate))
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """The density of y itself, nats, elementwise."""
        a = jnp.asarray(self.concentration)
        gap = value + jnp.log(self.rate) - jnp.log(a)
        return (
            a * (gap - jnp.expm1(gap)) + 0.5 * jnp.log(a) - _HALF_LOG_TWO_PI - stirling_remainder(a)
        )

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples of y, [*sample_shape, *batch_shape], reparameterised in both parameters."""
        a = jnp.broadcast_to(self.concentration, (*sample_shape, *self.batch_shape))
        return sample_log_gamma(key, a) - jnp.log(self.rate)

    @property
    def mean(self) -> Array:
        """E[y] = digamma(a) - log b."""
        return digamma(self.concentration) - jnp.log(self.rate)

    @property
    def variance(self) -> Array:
        """Var[y] = trigamma(a)."""
        return jnp.broadcast_to(polygamma(1, self.concentration), self.batch_shape)

    def entropy(self) -> Array:
        """log Gamma(a) + a - a digamma(a), nats: no b in it."""
        a = jnp.asarray(self.concentration)
        return jnp.broadcast_to(gammaln(a) + a - a * digamma(a), self.batch_shape)


class LogDirichlet(dist.Distribution):
    """y = log z with z ~ Dirichlet(a): log p(y) = log Gamma(sum a) - sum log Gamma(a_c) + sum a_c
    y_c.

    A density over the C - 1 log-ratios y_c - y_C (dz_1 ... dz_(C-1) = z_1 ... z_C times theirs),
    the same whichever class is the last. A log joint that is to be compared with it is written over
    the log-ratios too. The KL is the Dirichlets' own.

    Args:
      concentration: a, positive, [..., C].
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    support = constraints.real_vector  # with logsumexp(y) = 0
    reparametrized_params = ["concentration"]  # noqa: RUF012

    def __init__(self, concentration: Array, *, validate_args: bool | None = None) -> None:
        if jnp.ndim(concentration) < 1:
            raise ValueError(
                "LogDirichlet expects a concentration of shape [..., C]; got the shape "
                f"{jnp.shape(concentration)}."
            )
        self.concentration = jnp.asarray(concentration)
        super().__init__(
            self.concentration.shape[:-1],
            self.concentration.shape[-1:],
            validate_args=validate_args,
        )

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Nats, of the batch shape, for a y with logsumexp(y) = 0."""
        a = self.concentration
        return gammaln(a.sum(-1)) - gammaln(a).sum(-1) + (a * value).sum(-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples of y, [*sample_shape, *batch_shape, C], reparameterised; exp(y) may be 0, y is
        finite.
        """
        a = jnp.broadcast_to(self.concentration, (*sample_shape, *self.concentration.shape))
        return jax.nn.log_softmax(sample_log_gamma(key, a), axis=-1)

    @property
    def mean(self) -> Array:
        """E[y_c] = digamma(a_c) - digamma(sum a), [..., C]."""
        return digamma(self.concentration) - digamma(self.concentration.sum(-1, keepdims=True))

    @property
    def variance(self) -> Array:
        """Var[y_c] = trigamma(a_c) - trigamma(sum a), [..., C]."""
        return polygamma(1, self.concentration) - polygamma(
            1, self.concentration.sum(-1, keepdims=True)
        )
