"""The Bayesian mixture of diagonal Gaussians of unknown means, scales and weights."""

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
    strength: float = 0.05,
    shape: float = 1.0,
    rate: float = 1.0,
    concentration: float = 1.0,
) -> Model:
    """pi ~ Dirichlet(concentration), tau_kd ~ Gamma(shape, rate), mu_kd ~ N(0, 1 / (strength
    tau_kd)), c_n ~ pi, x_nd | c_n ~ N(mu_{c_n d}, 1 / tau_{c_n d}); q(mu_kd, tau_kd) stays joint
    (Bishop 2006, sec. 10.2, with a diagonal precision).

    Args:
      num_components: K; with a small concentration those that are not needed empty out.
      num_dims: D of x_n [D], centred: the prior's mean is 0, and in float32 a mean that is large
        beside the spread loses digits.
      strength, shape, rate: of the prior.

    Returns:
      A Model with factors "components" (`factors.normal_gamma`, [K, D]) and "weights"
      (`factors.dirichlet`).
    """

    def prior() -> Naturals:
        def full(value: float) -> Array:
            return jnp.full((num_components, num_dims), value, jnp.result_type(float))

        components = {
            "log": full(shape - 0.5),
            "minus": full(rate),
            "shift": full(0.0),
            "precision": full(strength),
        }
        return {
            "components": components,
            "weights": {
                "log": jnp.full(num_components, concentration - 1.0, jnp.result_type(float))
            },
        }

    def scores(means: Naturals, x: Array) -> Array:
        m = means["components"]  # of log tau, -tau, tau mu, -tau mu^2 / 2
        log_lik = (
            0.5 * m["log"]
            + 0.5 * x**2 * m["minus"]
            + x * m["shift"]
            + m["precision"]
            - HALF_LOG_TWO_PI
        )
        return means["weights"]["log"] + jnp.sum(log_lik, -1)

    return mixtures.make_model(
        (("components", factors.normal_gamma), ("weights", factors.dirichlet)), prior, scores
    )


def fit(
    key: Array,
    x: Any,
    *,
    num_components: int,
    strength: float = 0.05,
    shape: float = 1.0,
    rate: float = 1.0,
    concentration: float = 1.0,
    num_starts: int = 8,
    num_sweeps: int = 500,
    tolerance: float = 1e-6,
) -> cavi.Fit:
    """Coordinate ascent on data x [N] or [N, D] from R starts, the best of which is kept: see
    `model` and `cavi.fit`.
    """
    x = mixtures.as_rows(x)
    of = model(
        num_components,
        x.shape[1],
        strength=strength,
        shape=shape,
        rate=rate,
        concentration=concentration,
    )
    return mixtures.fit(
        key, of, x, num_starts=num_starts, num_sweeps=num_sweeps, tolerance=tolerance
    )
