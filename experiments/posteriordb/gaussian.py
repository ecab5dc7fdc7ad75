"""Gaussian linear regression through its least-squares fit: exact, O(K^2), and as accurate in
float32 as the parameters.

With X = Q R, b the least-squares coefficients and s^2 = |y - X b|^2 / N,

    log N(y | X beta, sigma^2 I)
        = log_max - N (log(sigma/s) + ((s/sigma)^2 - 1) / 2) - |R (beta - b)|^2 / (2 sigma^2),
    log_max = -N (log s + (1 + log 2 pi) / 2).

No residual of size y - X beta is formed, so scales of 1e5 cost no digits. X and y are numpy arrays,
read while tracing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Fit(NamedTuple):
    """The sufficient statistics of a Gaussian regression, in float64."""

    beta: np.ndarray  # [K], least squares
    root: np.ndarray  # [K, K], upper triangular, root' root = X'X
    scale: float  # the maximum likelihood sigma
    num: int  # rows
    log_max: float  # log likelihood at (beta, scale)


def columns(*variables: np.ndarray) -> np.ndarray:
    """A design [N, 1 + len(variables)]: ones first."""
    return np.stack(
        [np.ones(len(variables[0])), *(np.asarray(v, float) for v in variables)], axis=1
    )


def least_squares(design: np.ndarray, outcome: np.ndarray) -> Fit:
    """The fit of outcome [N] on design [N, K]."""
    design = np.asarray(design, float)
    outcome = np.asarray(outcome, float)
    q, root = np.linalg.qr(design)
    beta = np.linalg.solve(root, q.T @ outcome)
    num = len(outcome)
    scale = np.sqrt(np.mean((outcome - design @ beta) ** 2))
    return Fit(
        beta,
        root,
        float(scale),
        num,
        float(-num * (np.log(scale) + 0.5 + 0.5 * np.log(2.0 * np.pi))),
    )


def log_lik_ratio(fit: Fit, beta: jax.Array, sigma: jax.Array) -> jax.Array:
    """log N(y | X beta, sigma^2 I) - fit.log_max, at most 0; beta [K], sigma a scalar."""
    log_ratio = jnp.log(sigma / fit.scale)
    misfit = jnp.asarray(fit.root) @ ((beta - fit.beta) / sigma)
    return -fit.num * (log_ratio + 0.5 * jnp.expm1(-2.0 * log_ratio)) - 0.5 * jnp.sum(misfit**2)
