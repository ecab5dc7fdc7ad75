"""The categorical distribution over one-hot vectors."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

Array = jax.Array


class OneHotCategorical(dist.Distribution):
    """A class c of C as the vector e_c, by its logits: log p(x) = sum_c x_c log softmax(l)_c.

    Values on the simplex are read as class probabilities: the expected log density under them, as
    for `Bernoulli`.

    Args:
      logits: [..., C], up to a constant; a class of logit -inf is never taken.
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012
    support = constraints.multinomial(1)
    has_enumerate_support = True

    def __init__(self, logits: Array, *, validate_args: bool | None = None) -> None:
        if jnp.ndim(logits) < 1:
            raise ValueError(
                "OneHotCategorical expects logits of shape [..., C]; got the shape "
                f"{jnp.shape(logits)}."
            )
        self.logits = jnp.asarray(logits)
        super().__init__(
            self.logits.shape[:-1], self.logits.shape[-1:], validate_args=validate_args
        )

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """sum_c x_c log softmax(l)_c, where a class with x_c = 0 adds 0 even at the logit -inf."""
        taken = value != 0
        return jnp.where(
            taken, value * jnp.where(taken, jax.nn.log_softmax(self.logits, axis=-1), 0.0), 0.0
        ).sum(-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Zeros and a one in the logits' type, [*sample_shape, *batch_shape, C]; no gradient
        passes.
        """
        drawn = jax.random.categorical(key, self.logits, shape=(*sample_shape, *self.batch_shape))
        return jax.nn.one_hot(drawn, self.event_shape[0], dtype=self.logits.dtype)

    def enumerate_support(self, expand: bool = True) -> Array:
        """All C values, [C, *batch_shape, C], or with batch axes of length 1 where not expanded."""
        num_classes = self.event_shape[0]
        eye = jnp.eye(num_classes, dtype=self.logits.dtype).reshape(
            num_classes, *[1] * len(self.batch_shape), num_classes
        )
        return (
            jnp.broadcast_to(eye, (num_classes, *self.batch_shape, num_classes)) if expand else eye
        )

    @property
    def probs(self) -> Array:
        """softmax(l), [..., C]."""
        return jax.nn.softmax(self.logits, axis=-1)

    @property
    def mean(self) -> Array:
        """The class probabilities, [..., C]."""
        return self.probs

    @property
    def variance(self) -> Array:
        """p_c (1 - p_c), [..., C]."""
        return self.probs * (1.0 - self.probs)

    def entropy(self) -> Array:
        """-sum_c p_c log p_c, nats."""
        return -jax.scipy.special.xlogy(self.probs, self.probs).sum(-1)
