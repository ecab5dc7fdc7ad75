"""Bayesian linear regression with unknown noise, by mean field; automatic relevance
determination.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.conjugate import cavi, factors
from vi_jax.conjugate.engine import Model, Naturals, inner
from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.types import Array


@cache
def model(
    num_features: int,
    *,
    precision: float | None = None,
    shape: float = 1e-2,
    rate: float = 1e-2,
    relevance_shape: float = 1e-2,
    relevance_rate: float = 1e-2,
) -> Model:
    """tau ~ Gamma(shape, rate), w_d | tau ~ N(0, 1 / (tau alpha_d)), y_n ~ N(x_n'w, 1 / tau), with
    q(w) q(tau) q(alpha) (Drugowitsch 2013, sec. 2 and 3, but for q(w) and q(tau), which are apart
    here).

    Args:
      num_features: D of x_n [D]; a column of ones is an intercept. In float32 standardise y and the
        columns.
      precision: alpha, one fixed number; each alpha_d ~ Gamma(relevance_shape, relevance_rate) if
        not given.
      shape, rate: of the prior of the noise's precision.

    Returns:
      A Model of examples (x_n, y_n) with factors "w" (`factors.vector_normal`), "tau" and "alpha"
      [D] (`factors.gamma`).
    """
    relevances = (("alpha", factors.gamma),) if precision is None else ()
    known = (("w", factors.vector_normal), ("tau", factors.gamma), *relevances)

    def prior() -> Naturals:
        both = {
            "tau": gamma((), shape, rate),
            "alpha": gamma((num_features,), relevance_shape, relevance_rate),
        }
        return {name: both[name] for name, _ in known[1:]}

    def start() -> Naturals:
        dtype = jnp.result_type(float)
        w = {
            "shift": jnp.zeros(num_features, dtype),
            "precision": jnp.eye(num_features, dtype=dtype),
        }
        naturals = {"w": w, "tau": gamma((), 1.0, 1.0), "alpha": gamma((num_features,), 1.0, 1.0)}
        return {name: naturals[name] for name, _ in known}

    def log_prior(means: Naturals) -> Array:
        value = log_weights(means["w"], relevance(means, num_features, precision), means["tau"])
        for name, eta in prior().items():
            value += inner(eta, means[name]) - factors.gamma(eta)
        return value

    def log_lik(means: Naturals, row: tuple[Array, Array]) -> Array:
        x, y = row
        w = means["w"]
        tau = means["tau"]
        # E[(y - x'w)^2] / 2
        half_square = 0.5 * y**2 - y * (x @ w["shift"]) - x @ w["precision"] @ x
        return 0.5 * tau["log"] - HALF_LOG_TWO_PI + tau["minus"] * half_square

    return Model(known, log_prior, log_lik, tuple((name,) for name, _ in known), start)


def relevance(means: Naturals, num_features: int, precision: float | None) -> dict[str, Array]:
    """E[log alpha_d] and E[-alpha_d], [D]."""
    if precision is None:
        return means["alpha"]
    full = jnp.full(num_features, precision, jnp.result_type(float))
    return {"log": jnp.log(full), "minus": -full}


def log_weights(
    w: dict[str, Array], alpha: dict[str, Array], tau: dict[str, Array] | None = None
) -> Array:
    """E[log N(w | 0, 1 / (tau alpha))], tau = 1 if not given."""
    log_tau, minus_tau = (tau["log"], tau["minus"]) if tau is not None else (0.0, -1.0)
    half_squares = -jnp.diagonal(w["precision"])  # E[w_d^2] / 2
    size = half_squares.size
    return (
        0.5 * (jnp.sum(alpha["log"]) + size * log_tau)
        - minus_tau * (alpha["minus"] @ half_squares)
        - size * HALF_LOG_TWO_PI
    )


def gamma(shape: tuple[int, ...], a: float, b: float) -> dict[str, Array]:
    """Natural parameters of Gamma(a, b), all alike."""
    return {
        "log": jnp.full(shape, a - 1.0, jnp.result_type(float)),
        "minus": jnp.full(shape, b, jnp.result_type(float)),
    }


def fit(
    x: Any, y: Any, *, num_sweeps: int = 500, tolerance: float = 1e-6, **settings: Any
) -> cavi.Fit:
    """Coordinate ascent on x [N, D] and y [N]; `settings` are those of `model`.

    `factors.as_vector_normal(fit.natural["w"])` is the posterior of w, `factors.as_gamma` that of
    the rest.
    """
    rows = as_regression(x, y)
    of = model(rows[0].shape[1], **settings)
    return cavi.fit(
        of,
        rows,
        jax.tree.map(lambda leaf: leaf[None], of.start()),
        num_sweeps=num_sweeps,
        tolerance=tolerance,
    )


def as_regression(x: Any, y: Any) -> tuple[Array, Array]:
    """x [N, D] and y [N], floating.

    Raises:
      ValueError: other shapes.
    """
    x = jnp.asarray(x, jnp.result_type(float))
    y = jnp.asarray(y, jnp.result_type(float))
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"a regression expects x [N, D] and y [N]; got {x.shape} and {y.shape}.")
    return x, y
