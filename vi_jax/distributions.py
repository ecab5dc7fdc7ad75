"""Densities that numpyro.distributions lacks or gets wrong; everything else is taken from there as it stands.

All are numpyro distributions: pytrees with `sample(key, sample_shape)` and `log_prob(value)`, in nats.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

Array = jax.Array


class Bernoulli(dist.BernoulliLogits):
    """Bernoulli by its logits l: log p(x) = x l - log(1 + e^l).

    Parts from numpyro's in its gradient at l = 0: x - sigmoid(l) = x - 1/2 there, where numpyro's clipped cross-entropy gives
    x - 1 or x (jax.numpy's derivatives of max and abs meet at the kink). A zero-initialised decoder starts exactly there.
    Values between 0 and 1 are read as the probability of a one: the expected log density under that coin.

    Args:
      logits: any shape; the batch shape.
    """

    def log_prob(self, value: Array) -> Array:
        """x l - log(1 + e^l), elementwise."""
        return value * self.logits - jax.nn.softplus(self.logits)


class Binomial(dist.BinomialLogits):
    """Binomial by its logits, with the gradient x - n sigmoid(l) at every logit, 0 included (see `Bernoulli`)."""

    def log_prob(self, value: Array) -> Array:
        """log C(n, x) + x l - n log(1 + e^l), elementwise."""
        n = self.total_count
        log_choose = gammaln(n + 1.0) - gammaln(value + 1.0) - gammaln(n - value + 1.0)
        return log_choose + value * self.logits - n * jax.nn.softplus(self.logits)


class DiscretizedLogistic(dist.Distribution):
    """A logistic rounded to the levels 0..num_levels - 1 (Salimans et al. 2017, eq. 2; Kingma et al. 2016).

        P(x) = sigmoid((x + 1/2 - loc) / scale) - sigmoid((x - 1/2 - loc) / scale),

    with the two tails given to the first and the last level, so that it sums to 1. With b > a the two arguments,

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - e^(a - b)),

    which has no cancellation and no clipped case: value and gradient are right at any loc and scale.

    Args:
      loc: centre, in levels.
      scale: in levels, positive.
      num_levels: 256 for 8-bit pixels.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    pytree_data_fields = ("loc", "scale")
    pytree_aux_fields = ("num_levels",)

    def __init__(self, loc: Array, scale: Array, num_levels: int = 256, *, validate_args: bool | None = None) -> None:
        if num_levels < 2:
            raise ValueError(f"DiscretizedLogistic wants num_levels of at least 2; got {num_levels}.")
        self.loc, self.scale = promote_shapes(loc, scale)
        self.num_levels = num_levels
        shape = jnp.broadcast_shapes(jnp.shape(loc), jnp.shape(scale))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..num_levels - 1."""
        return constraints.integer_interval(0, self.num_levels - 1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log P(value) for levels 0..num_levels - 1, elementwise."""
        upper = (value + 0.5 - self.loc) / self.scale
        lower = (value - 0.5 - self.loc) / self.scale
        log_below = jnp.where(value >= self.num_levels - 1, 0.0, jax.nn.log_sigmoid(upper))  # log P(X <= value)
        log_above = jnp.where(value <= 0, 0.0, jax.nn.log_sigmoid(-lower))  # log P(X >= value)
        edge = (value <= 0) | (value >= self.num_levels - 1)
        log_width = jnp.log(-jnp.expm1(-1.0 / self.scale))
        return log_below + log_above + jnp.where(edge, 0.0, log_width)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Levels as floats, [*sample_shape, *batch_shape]."""
        noise = jax.random.logistic(key, (*sample_shape, *self.batch_shape), jnp.result_type(float))
        return jnp.clip(jnp.round(self.loc + self.scale * noise), 0, self.num_levels - 1)

    @property
    def mean(self) -> Array:
        """E[x] = sum_x P(X >= x) over x = 1..num_levels - 1, exactly."""
        edges = jnp.arange(1, self.num_levels) - 0.5
        return jax.nn.sigmoid((self.loc[..., None] - edges) / self.scale[..., None]).sum(-1)

    @property
    def variance(self) -> Array:
        """E[x^2] - E[x]^2, with E[x^2] = sum_x (2 x - 1) P(X >= x)."""
        x = jnp.arange(1, self.num_levels)
        tail = jax.nn.sigmoid((self.loc[..., None] - (x - 0.5)) / self.scale[..., None])
        return ((2 * x - 1) * tail).sum(-1) - tail.sum(-1) ** 2
