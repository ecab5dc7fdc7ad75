"""The discretised logistic distribution, for 8-bit pixel values."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

Array = jax.Array


class DiscretizedLogistic(dist.Distribution):
    """A logistic rounded to the levels 0..num_levels - 1 (Salimans et al. 2017, eq. 2; Kingma et
    al. 2016).

        P(x) = sigmoid((x + 1/2 - loc) / scale) - sigmoid((x - 1/2 - loc) / scale),

    with the two tails given to the first and the last level, so that it sums to 1. With b > a the
    two arguments,

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - e^(a - b)),

    which has no cancellation and no clipped case: value and gradient are right at any loc and
    scale.

    Args:
      loc: centre, in levels.
      scale: in levels, positive.
      num_levels: 256 for 8-bit pixels.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    pytree_data_fields = ("loc", "scale")
    pytree_aux_fields = ("num_levels",)

    def __init__(
        self, loc: Array, scale: Array, num_levels: int = 256, *, validate_args: bool | None = None
    ) -> None:
        if num_levels < 2:
            raise ValueError(
                f"DiscretizedLogistic expects num_levels of at least 2; got {num_levels}."
            )
        self.loc, self.scale = promote_shapes(jnp.asarray(loc), jnp.asarray(scale))
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
        # log P(X <= value)
        log_below = jnp.where(value >= self.num_levels - 1, 0.0, jax.nn.log_sigmoid(upper))
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
