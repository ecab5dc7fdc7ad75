"""Ordered levels by cumulative logits."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

Array = jax.Array


class OrderedLogistic(dist.Distribution):
    """The levels 0..L - 1 by P(x <= k) = sigmoid(c_k - f), the cumulative logit model (McCullagh
    1980, eq. 2.4).

    Parts from numpyro's, which subtracts sigmoids: those are equal at f = 20, with log p = -inf.
    Here, with a and b the cumulative logits below and above a level (see `DiscretizedLogistic`),

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - e^(a - b)).

    Args:
      predictor: f, [...]; the batch shape.
      thresholds: c, ascending along the last axis, [..., L - 1].
    """

    arg_constraints = {  # noqa: RUF012
        "predictor": constraints.real,
        "thresholds": constraints.ordered_vector,
    }
    pytree_data_fields = ("predictor", "thresholds")

    def __init__(
        self, predictor: Array, thresholds: Array, *, validate_args: bool | None = None
    ) -> None:
        self.predictor = jnp.asarray(predictor)
        self.thresholds = jnp.asarray(thresholds)
        shape = jnp.broadcast_shapes(self.predictor.shape, self.thresholds.shape[:-1])
        super().__init__(batch_shape=shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..L - 1."""
        return constraints.integer_interval(0, self.num_levels - 1)

    @property
    def num_levels(self) -> int:
        """L."""
        return self.thresholds.shape[-1] + 1

    @property
    def log_probs(self) -> Array:
        """log P of every level, [..., L]."""
        logits = self.thresholds - self.predictor[..., None]
        one_end = jnp.zeros((*logits.shape[:-1], 1), logits.dtype)
        log_below = jnp.concatenate([jax.nn.log_sigmoid(logits), one_end], -1)  # log P(X <= k)
        log_above = jnp.concatenate([one_end, jax.nn.log_sigmoid(-logits)], -1)  # log P(X >= k)
        log_width = jnp.log(-jnp.expm1(-jnp.diff(self.thresholds, axis=-1)))
        log_width = jnp.broadcast_to(log_width, (*logits.shape[:-1], log_width.shape[-1]))
        ends = jnp.zeros_like(logits[..., :1])
        return log_below + log_above + jnp.concatenate([ends, log_width, ends], -1)

    @property
    def probs(self) -> Array:
        """P of every level, [..., L]."""
        return jnp.exp(self.log_probs)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log P(value) for levels 0..L - 1, whole numbers of any type, elementwise."""
        level = jax.nn.one_hot(jnp.asarray(value, jnp.int32), self.num_levels, dtype=bool)
        return jnp.where(level, self.log_probs, 0.0).sum(-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Levels as floats, [*sample_shape, *batch_shape]: how many thresholds are below f plus
        logistic noise.
        """
        shape = (*sample_shape, *self.batch_shape)
        place = self.predictor + jax.random.logistic(key, shape, self.predictor.dtype)
        return (place[..., None] > self.thresholds).sum(-1).astype(place.dtype)

    @property
    def mean(self) -> Array:
        """E[x] = sum_k P(X > k) over k = 0..L - 2."""
        return jax.nn.sigmoid(self.predictor[..., None] - self.thresholds).sum(-1)

    @property
    def variance(self) -> Array:
        """E[x^2] - E[x]^2, with E[x^2] = sum_k (2 k + 1) P(X > k)."""
        above = jax.nn.sigmoid(self.predictor[..., None] - self.thresholds)
        weights = 2.0 * jnp.arange(self.num_levels - 1) + 1.0
        return (weights.astype(above.dtype) * above).sum(-1) - above.sum(-1) ** 2
