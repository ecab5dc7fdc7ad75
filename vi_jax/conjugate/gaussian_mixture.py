"""The Bayesian mixture of Gaussians of known scale."""

from functools import cache
from typing import Any

import jax.numpy as jnp

from vi_jax.conjugate import cavi, factors, mixtures
from vi_jax.conjugate.engine import Model, Naturals
from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array


@cache
def model(
    num_components: int,
    num_dims: int,
    *,
    prior_scale: float = 10.0,
    noise_scale: float = 1.0,
    concentration: float | None = None,
) -> Model:
    """mu_k ~ N(0, prior_scale^2 I), c_n uniform over K, x_n | c_n ~ N(mu_{c_n}, noise_scale^2 I)
    (Blei et al. 2017, sec. 2.1).

    A sweep of `cavi` is their algorithm 2, and its ELBO their eq. 21: with noise_scale 1
        phi_nk ~ exp(E[mu_k]' x_n - E[mu_k' mu_k] / 2)                                 (eq. 26)
        m_k = s_k^2 sum_n phi_nk x_n,  s_k^2 = 1 / (1 / prior_scale^2 + sum_n phi_nk)  (eq. 34).

    Args:
      num_components: K.
      num_dims: D of x_n [D].
      prior_scale, noise_scale: standard deviations.
      concentration: of a symmetric Dirichlet prior of the components' weights; uniform weights, as
        in the paper, if not given.

    Returns:
      A Model with factors "loc" (`factors.normal`, [K, D]) and, given a concentration, "weights"
      (`factors.dirichlet`).
    """
    known = (
        ("loc", factors.normal),
        *((("weights", factors.dirichlet),) if concentration is not None else ()),
    )

    def prior() -> Naturals:
        shape = (num_components, num_dims)
        dtype = jnp.result_type(float)
        loc = {
            "shift": jnp.zeros(shape, dtype),
            "precision": jnp.full(shape, prior_scale**-2.0, dtype),
        }
        if concentration is None:
            return {"loc": loc}
        weights = {"log": jnp.full(num_components, concentration - 1.0, dtype)}
        return {"loc": loc, "weights": weights}

    def scores(means: Naturals, x: Array) -> Array:
        log_weight = -jnp.log(float(num_components))
        if concentration is not None:
            log_weight = means["weights"]["log"]
        mu = means["loc"]["shift"]
        minus_half_square = means["loc"]["precision"]
        square = jnp.sum(mu * x + minus_half_square, -1) - 0.5 * jnp.sum(x**2)
        return (
            log_weight
            + square / noise_scale**2
            - num_dims * (HALF_LOG_TWO_PI + jnp.log(noise_scale))
        )

    return mixtures.make_model(known, prior, scores)


def fit(
    key: Array,
    x: Any,
    *,
    num_components: int,
    prior_scale: float = 10.0,
    noise_scale: float = 1.0,
    concentration: float | None = None,
    num_starts: int = 8,
    num_sweeps: int = 500,
    tolerance: float = 1e-6,
) -> cavi.Fit:
    """Coordinate ascent on data x [N] or [N, D] from R starts, the best of which is kept: see
    `model` and `cavi.fit`.

    `factors.as_normal(fit.natural["loc"])` is the posterior of the means,
    `mixtures.responsibilities` that of the assignments.
    """
    x = mixtures.as_rows(x)
    of = model(
        num_components,
        x.shape[1],
        prior_scale=prior_scale,
        noise_scale=noise_scale,
        concentration=concentration,
    )
    return mixtures.fit(
        key, of, x, num_starts=num_starts, num_sweeps=num_sweeps, tolerance=tolerance
    )
