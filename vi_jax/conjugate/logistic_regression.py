"""Bayesian logistic regression by the Jaakkola-Jordan bound; automatic relevance determination."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.conjugate import cavi, factors
from vi_jax.conjugate.engine import Model, Naturals, inner
from vi_jax.conjugate.linear_regression import as_regression, gamma, log_weights, relevance
from vi_jax.types import Array


@cache
def model(
    num_features: int,
    *,
    precision: float | None = 1.0,
    relevance_shape: float = 1e-2,
    relevance_rate: float = 1e-2,
) -> Model:
    """w_d ~ N(0, 1 / alpha_d), y_n ~ Bernoulli(sigma(x_n'w)) with the likelihood's Gaussian lower
    bound (Jaakkola & Jordan 2000, eq. 3; Bishop 2006, sec. 10.6; with alpha, Drugowitsch 2013, sec.
    4): for any xi,

        log sigma(a) >= log sigma(xi) + (a - xi) / 2 - lambda(xi) (a^2 - xi^2),
        lambda(xi) = tanh(xi / 2) / (4 xi).

    At the best xi_n^2 = x_n' E[w w'] x_n the last term's mean is 0, and what is left has the
    gradient -lambda(xi) x x' in E[w w'].

    Args:
      num_features: D of x_n [D]; a column of ones is an intercept.
      precision: alpha, one fixed number; None for alpha_d ~ Gamma(relevance_shape, relevance_rate).

    Returns:
      A Model of examples (x_n, y_n), y_n 0 or 1, with factors "w" (`factors.vector_normal`) and
      "alpha" [D] (`factors.gamma`). Its ELBO is a lower bound of log p(y), and below the ELBO of
      its q(w).
    """
    known = (
        ("w", factors.vector_normal),
        *((("alpha", factors.gamma),) if precision is None else ()),
    )

    def start() -> Naturals:
        dtype = jnp.result_type(float)
        w = {
            "shift": jnp.zeros(num_features, dtype),
            "precision": jnp.eye(num_features, dtype=dtype),
        }
        naturals = {"w": w, "alpha": gamma((num_features,), 1.0, 1.0)}
        return {name: naturals[name] for name, _ in known}

    def log_prior(means: Naturals) -> Array:
        value = log_weights(means["w"], relevance(means, num_features, precision))
        if precision is None:
            eta = gamma((num_features,), relevance_shape, relevance_rate)
            value += inner(eta, means["alpha"]) - factors.gamma(eta)
        return value

    def log_lik(means: Naturals, row: tuple[Array, Array]) -> Array:
        x, y = row
        w = means["w"]
        return (y - 0.5) * (x @ w["shift"]) - _log_two_cosh(-2.0 * (x @ w["precision"] @ x))

    return Model(known, log_prior, log_lik, tuple((name,) for name, _ in known), start)


def _log_two_cosh(square: Array) -> Array:
    """log(2 cosh(xi / 2)) = xi / 2 - log sigma(xi), of xi^2, smooth at 0."""
    small = square < 1e-4
    xi = jnp.sqrt(jnp.where(small, 1.0, square))
    return jnp.where(small, jnp.log(2.0) + square / 8.0, 0.5 * xi + jnp.log1p(jnp.exp(-xi)))


def fit(
    x: Any, y: Any, *, num_sweeps: int = 500, tolerance: float = 1e-6, **settings: Any
) -> cavi.Fit:
    """Coordinate ascent on x [N, D] and y [N] of 0 and 1; `settings` are those of `model`.

    `factors.as_vector_normal(fit.natural["w"])` is the posterior of w.
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
