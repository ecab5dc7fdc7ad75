"""Zero-inflated counts: a mixture of zeros and any distribution of counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

Array = jax.Array


class ZeroInflated(dist.Distribution):
    """0 with probability pi = sigmoid(g), else a count of the base (Lambert 1992, eq. 1).

        log p(0) = log(pi + (1 - pi) p_base(0)),    log p(x) = log(1 - pi) + log p_base(x)

    Parts from numpyro's ZeroInflatedDistribution, which adds the probabilities themselves: both
    underflow where the base is far from 0, with log p = -inf and a gradient of nan.

    Args:
      base: over counts, of batch shape that of g.
      gate_logits: g.
    """

    arg_constraints = {"gate_logits": constraints.real}  # noqa: RUF012
    support = constraints.nonnegative_integer
    pytree_data_fields = ("base", "gate_logits")

    def __init__(self, base: Any, gate_logits: Array, *, validate_args: bool | None = None) -> None:
        self.base = base
        self.gate_logits = jnp.asarray(gate_logits)
        shape = jnp.broadcast_shapes(base.batch_shape, self.gate_logits.shape)
        if shape != base.batch_shape:
            raise ValueError(
                "ZeroInflated expects gate_logits of the base's batch shape "
                f"{base.batch_shape}; got {self.gate_logits.shape}."
            )
        super().__init__(batch_shape=shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """log p(value), elementwise."""
        log_base = self.base.log_prob(value) + jax.nn.log_sigmoid(-self.gate_logits)
        log_gate = jax.nn.log_sigmoid(self.gate_logits)
        return jnp.where(value <= 0, jnp.logaddexp(log_gate, log_base), log_base)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Counts, [*sample_shape, *batch_shape]."""
        key_gate, key_count = jax.random.split(key)
        counts = self.base.sample(key_count, sample_shape)
        is_zero = jax.random.bernoulli(key_gate, jax.nn.sigmoid(self.gate_logits), counts.shape)
        return jnp.where(is_zero, 0, counts)

    @property
    def mean(self) -> Array:
        """(1 - pi) times that of the base."""
        return jax.nn.sigmoid(-self.gate_logits) * self.base.mean

    @property
    def variance(self) -> Array:
        """(1 - pi) (v + pi m^2), with m and v of the base."""
        gate = jax.nn.sigmoid(self.gate_logits)
        return jax.nn.sigmoid(-self.gate_logits) * (self.base.variance + gate * self.base.mean**2)
