"""Flat priors: Stan gives a parameter that has no prior a uniform density over its declared
support.
"""

from typing import Any

import jax
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


class Flat(dist.ImproperUniform):
    """An ImproperUniform that gives first values when a model is run forward: unconstrained ones
    uniform on (-2, 2).
    """

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Not draws of a distribution: there is none."""
        transform = dist.biject_to(self.support)
        shape = transform.inverse_shape((*sample_shape, *self.batch_shape, *self.event_shape))
        return transform(jax.random.uniform(key, shape, minval=-2.0, maxval=2.0))


def flat(name: str, size: int) -> jax.Array:
    """A vector [size] with p(x) = 1 on the reals."""
    return numpyro.sample(name, Flat(constraints.real_vector, (), (size,)))


def flat_real(name: str) -> jax.Array:
    """A number with p(x) = 1 on the reals."""
    return numpyro.sample(name, Flat(constraints.real, (), ()))


def flat_positive(name: str) -> jax.Array:
    """A number with p(x) = 1 on x > 0."""
    return numpyro.sample(name, Flat(constraints.positive, (), ()))


def flat_ordered(name: str, size: int, *, positive: bool = False) -> jax.Array:
    """A vector [size] with p(x) = 1 on x_1 < x_2 < ..., on 0 < x_1 < x_2 < ... where positive."""
    support = constraints.positive_ordered_vector if positive else constraints.ordered_vector
    return numpyro.sample(name, Flat(support, (), (size,)))
