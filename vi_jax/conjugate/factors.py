"""Factors q(b) = exp(<natural, T(b)> - A(natural)) by their log-normalisers A; base measures are 1,
constants are in A.

Natural parameters are dicts; E[T] is the gradient of A, a dict of the same names. Every A sums over
leading axes, which are independent factors.
"""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from vi_jax import linalg
from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array, Params


def dirichlet(natural: Params) -> Array:
    """T = log pi; natural {"log": alpha - 1 [..., K]}."""
    alpha = natural["log"] + 1.0
    return jnp.sum(jnp.sum(gammaln(alpha), -1) - gammaln(jnp.sum(alpha, -1)))


def gamma(natural: Params) -> Array:
    """T = log tau, -tau; natural {"log": a - 1, "minus": b}, of shape and rate."""
    a = natural["log"] + 1.0
    b = natural["minus"]
    return jnp.sum(gammaln(a) - a * jnp.log(b))


def normal(natural: Params) -> Array:
    """T = mu, -mu^2 / 2; natural {"shift": precision mean, "precision"}, every entry a factor of
    its own.
    """
    shift = natural["shift"]
    precision = natural["precision"]
    return jnp.sum(0.5 * shift**2 / precision - 0.5 * jnp.log(precision) + HALF_LOG_TWO_PI)


def vector_normal(natural: Params) -> Array:
    """T = w, -w w' / 2; natural {"shift": P mean [D], "precision": P [D, D]}, one factor."""
    root = linalg.cholesky(natural["precision"])
    half = linalg.solve_triangular(root, natural["shift"], lower=True)
    return (
        0.5 * jnp.sum(half**2)
        - jnp.sum(jnp.log(jnp.diagonal(root)))
        + natural["shift"].size * HALF_LOG_TWO_PI
    )


def normal_gamma(natural: Params) -> Array:
    """T = log tau, -tau, tau mu, -tau mu^2 / 2 of N(mu | m, 1 / (k tau)) Gamma(tau | a, b); natural
    {"log": a - 1/2, "minus": b + k m^2 / 2, "shift": k m, "precision": k}, every entry a factor of
    its own.
    """
    a = natural["log"] + 0.5
    k = natural["precision"]
    b = natural["minus"] - 0.5 * natural["shift"] ** 2 / k
    return jnp.sum(gammaln(a) - a * jnp.log(b) - 0.5 * jnp.log(k) + HALF_LOG_TWO_PI)


def as_dirichlet(natural: Params) -> Any:
    """The distribution of natural parameters."""
    return dist.Dirichlet(natural["log"] + 1.0)


def as_gamma(natural: Params) -> Any:
    """The distribution of natural parameters."""
    return dist.Gamma(natural["log"] + 1.0, natural["minus"])


def as_normal(natural: Params) -> Any:
    """The distribution of natural parameters, entry by entry."""
    return dist.Normal(natural["shift"] / natural["precision"], natural["precision"] ** -0.5)


def as_vector_normal(natural: Params) -> Any:
    """The distribution of natural parameters."""
    root = linalg.cholesky(natural["precision"])
    mean = linalg.cho_solve((root, True), natural["shift"])
    return dist.MultivariateNormal(mean, precision_matrix=natural["precision"])
