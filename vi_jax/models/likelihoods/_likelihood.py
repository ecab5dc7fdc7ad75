"""The form of a likelihood."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array, Params


class Likelihood(NamedTuple):
    """How a decoder's outputs [*x_shape, num_outputs] become a distribution over x [*x_shape]."""

    num_outputs: int
    init: Callable[[tuple[int, ...]], Params]  # x_shape -> the likelihood's own parameters
    make: Callable[
        [Params, Array], Any
    ]  # (own parameters, outputs) -> a distribution of batch shape x_shape
    # (x, p(x | z)) -> statistics of one example at one draw, and (own parameters, their mean over a
    # batch) -> own parameters at their optimum on the batch
    stats: Callable[[Array, Any], Any] | None = None
    update: Callable[[Params, Any], Params] | None = None
    # what x is: "binary" (0 or 1), "unit" (a grey level in [0, 1]), "real" (grey levels among
    # others), "positive", "levels" (whole numbers below num_levels) or "count" (any from 0)
    support: str = "unit"
    scale: float = 1.0  # x times this is in [0, 1]: what an encoder sees
    # (own parameters, x, mean and variance of a normal output) -> E[log p(x)], elementwise, where
    # it has a closed form; of likelihoods of one output
    expected: Callable[[Params, Array, Array, Array], Array] | None = None
    # (own parameters, mean squared residual E[(x - output)^2] of each element) -> own parameters at
    # their optimum, where the output is the mean of a Gaussian
    at_residual: Callable[[Params, Array], Params] | None = None


def no_parameters(x_shape: tuple[int, ...]) -> Params:
    """{}: of a likelihood that has none."""
    del x_shape
    return {}


def filled(value: Any, shape: tuple[int, ...]) -> Array:
    """A number, or an array that broadcasts to it, as parameters of that shape."""
    return jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), shape)


def require_positive(likelihood: str, name: str, value: Any) -> None:
    """Raises ValueError where a number, or one of an array, is not positive."""
    if not np.all(np.asarray(value) > 0):
        raise ValueError(f"{likelihood} needs {name} > 0; got {value}.")


def expected_normal(sigma: Array, x: Array, mean: Array, variance: Array) -> Array:
    """E[log N(x | f, sigma^2)] for f ~ N(mean, variance), nats."""
    square = (x - mean) ** 2 + variance
    return -0.5 * square / sigma**2 - jnp.log(sigma) - HALF_LOG_TWO_PI
