"""Flat priors: Stan gives a parameter that has no prior a uniform density over its declared support."""

import jax
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def flat(name: str, size: int) -> jax.Array:
    """A vector [size] with p(x) = 1 on the reals."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.real_vector, (), (size,)))


def flat_real(name: str) -> jax.Array:
    """A number with p(x) = 1 on the reals."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.real, (), ()))


def flat_positive(name: str) -> jax.Array:
    """A number with p(x) = 1 on x > 0."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))


def flat_ordered(name: str, size: int, *, positive: bool = False) -> jax.Array:
    """A vector [size] with p(x) = 1 on x_1 < x_2 < ..., on 0 < x_1 < x_2 < ... where positive."""
    support = constraints.positive_ordered_vector if positive else constraints.ordered_vector
    return numpyro.sample(name, dist.ImproperUniform(support, (), (size,)))
