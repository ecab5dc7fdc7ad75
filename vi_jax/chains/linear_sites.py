"""Information sites of observations that meet a chain by linear predictors: second-order expansions
of their expected log-likelihoods, and those to start from.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.chains.expectations import Expected
from vi_jax.chains.kalman import Sites, Smoothed
from vi_jax.chains.small import applied
from vi_jax.types import Array, freeze

SLACK = 1e-6  # of the ELBO's terms, by which a pass may lose: rounding
NUM_MODE_STEPS = 20
MODE_STEP = 2.0  # of a predictor at a time
MODE_VARIANCE = 16.0  # of predictors, around their offsets


class Emission(NamedTuple):
    """Linear predictors eta_t = C z_t + d."""

    loadings: Array  # C, [N, D]
    offset: Array  # d, [N]


def frozen(
    expected: Callable[[Array, Array], Expected],
) -> Callable[[Array, Array], Expected]:
    """The same, through which no gradient passes, whatever it closes over."""
    return lambda mean, variance: freeze(expected(mean, variance))


def at_modes_where(
    asked: Array,
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    sites: Sites,
) -> Sites:
    """`sites_at_modes` where they are asked for, by a loop of at most one step: series which do not
    ask do not pay.
    """

    def modes(carry: tuple[Sites, Array]) -> tuple[Sites, Array]:
        return sites_at_modes(emission, expected, observed), jnp.zeros_like(carry[1])

    return jax.lax.while_loop(lambda carry: carry[1], modes, (sites, asked))[0]


def rounding(log_lik: Array, sites: Sites, of: Smoothed) -> Array:
    """Nats by which an ELBO may be off: precise sites are large terms that cancel."""
    terms = jnp.abs(log_lik) + jnp.abs(of.log_z) + jnp.sum(jnp.abs(sites.h * of.mean))
    return SLACK * terms


def sites_at_modes(
    emission: Emission, expected: Callable[[Array, Array], Expected], observed: Array
) -> Sites:
    """Of second-order expansions where p(y_tn | eta) N(eta | d_n, MODE_VARIANCE) has a mode."""
    offset = jnp.broadcast_to(emission.offset, observed.shape)

    def newton(eta: Array, _: None) -> tuple[Array, None]:
        found = at_known(expected, observed, eta)
        slope = found.slope - (eta - offset) / MODE_VARIANCE
        step = slope / (found.curvature + 1.0 / MODE_VARIANCE)
        return eta + jnp.clip(step, -MODE_STEP, MODE_STEP), None

    eta, _ = jax.lax.scan(newton, offset, None, length=NUM_MODE_STEPS)
    found = at_known(expected, observed, eta)
    pulled = found.slope + found.curvature * (eta - offset)
    return Sites(pulled @ emission.loadings, weighted_squares(emission, found.curvature))


def predictors(emission: Emission, moments: Smoothed) -> tuple[Array, Array]:
    """Mean and variance of eta, each [T, N]."""
    loadings = emission.loadings
    mean = moments.mean @ loadings.T + emission.offset
    squares = loadings[:, :, None] * loadings[:, None]
    num_steps, size = moments.mean.shape
    flat = moments.cov.reshape(num_steps, size * size)
    return mean, flat @ squares.reshape(-1, size * size).T


def at_predictors(
    emission: Emission,
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    moments: Smoothed,
) -> Expected:
    """E[l] and its derivatives, [T, N], 0 where nothing is observed."""
    return _of_observed(expected(*predictors(emission, moments)), observed)


def at_known(
    expected: Callable[[Array, Array], Expected],
    observed: Array,
    eta: Array,
) -> Expected:
    """The same at known predictors [T, N], or [N] of all steps."""
    eta = jnp.broadcast_to(eta, observed.shape)
    return _of_observed(expected(eta, jnp.zeros_like(eta)), observed)


def _of_observed(found: Expected, observed: Array) -> Expected:
    curvature = jnp.maximum(found.curvature, 0.0)
    found = found._replace(curvature=curvature)
    return jax.tree.map(lambda leaf: jnp.where(observed, leaf, 0.0), found)


def sites_of(emission: Emission, found: Expected, moments: Smoothed) -> Sites:
    """The right-hand side of the fixed point at some moments."""
    J = weighted_squares(emission, found.curvature)
    h = found.slope @ emission.loadings + applied(J, moments.mean)
    return Sites(h, J)


def weighted_squares(emission: Emission, weights: Array) -> Array:
    """sum_n w_tn c_n c_n', [T, D, D]."""
    loadings = emission.loadings
    size = loadings.shape[-1]
    squares = (loadings[:, :, None] * loadings[:, None]).reshape(-1, size * size)
    return (weights @ squares).reshape(-1, size, size)
