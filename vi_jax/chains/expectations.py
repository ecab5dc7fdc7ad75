"""Expectations of a log-likelihood of one number under a normal, and their derivatives: what
conjugate-computation variational inference asks of a likelihood.

By Bonnet and Price, d E[l] / d mean = E[l'] and d E[l] / d variance = E[l''] / 2, so that a closed
form of E[l] has all of them; any other likelihood is integrated by Gauss-Hermite quadrature, in one
dimension for each observation, however many latents there are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.types import Array

NUM_POINTS = 20  # of Gauss-Hermite quadrature: exact for polynomials up to degree 39
LogLik = Callable[[Array], Array]  # eta [...] -> log p(y | eta), elementwise
ExpectedLogLik = Callable[[Array, Array], Array]  # mean and variance of eta -> E[l], elementwise


class Expected(NamedTuple):
    """Under N(mean, variance), elementwise, nats."""

    value: Array  # E[l]
    slope: Array  # E[l']
    curvature: Array  # -E[l'']


def expected_by_quadrature(log_lik: LogLik, num_points: int = NUM_POINTS) -> ExpectedLogLik:
    """E[l] of any log-likelihood, elementwise, by Gauss-Hermite quadrature."""
    points, weights = _rule(num_points)

    def expected(mean: Array, variance: Array) -> Array:
        values = jax.vmap(lambda point: log_lik(mean + point * _sd(variance)))(
            points.astype(mean.dtype)
        )
        return jnp.tensordot(weights.astype(mean.dtype), values, 1)

    return expected


def by_quadrature(
    log_lik: LogLik, num_points: int = NUM_POINTS
) -> Callable[[Array, Array], Expected]:
    """E[l], E[l'] and -E[l''] of any log-likelihood that is twice differentiable."""
    points, weights = _rule(num_points)

    def all_three(eta: Array) -> tuple[Array, Array, Array]:
        ones = jnp.ones_like(eta)

        def first(eta: Array) -> tuple[Array, Array]:
            return jax.jvp(log_lik, (eta,), (ones,))

        (value, slope), (_, second) = jax.jvp(first, (eta,), (ones,))
        return value, slope, -second

    def expected(mean: Array, variance: Array) -> Expected:
        found = jax.vmap(lambda point: all_three(mean + point * _sd(variance)))(
            points.astype(mean.dtype)
        )
        return Expected(*(jnp.tensordot(weights.astype(mean.dtype), each, 1) for each in found))

    return expected


def by_closed_form(expected: ExpectedLogLik) -> Callable[[Array, Array], Expected]:
    """The same three of a closed form of E[l]."""

    def all_three(mean: Array, variance: Array) -> Expected:
        value, back = jax.vjp(expected, mean, variance)
        slope, half_second = back(jnp.ones_like(value))
        return Expected(value, slope, -2.0 * half_second)

    return all_three


def _rule(num_points: int) -> tuple[Array, Array]:
    """Points and weights of a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(num_points)
    return jnp.asarray(points), jnp.asarray(weights / weights.sum())


def _sd(variance: Array) -> Array:
    # a gradient at a variance of 0, as of a neuron without loadings, is 0
    return jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
