"""Mean-field k-hats on the examples of Yao et al. 2018, and the exact one of a Gaussian."""

from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import vi_jax as vi
from benchmarks.plain_methods import adagrad
from benchmarks.posterior_models import Line, schools, steps_of


def yao() -> list[Line]:
    """Mean-field k-hats on the examples of Yao et al. 2018."""
    lines = []
    for centered, published in ((True, "1.00"), (False, "0.64")):
        target = vi.targets.from_numpyro(schools(centered=centered))
        result = vi.fit(jax.random.key(0), target, vi.methods.advi(), num_draws=100_000)
        name = "centred" if centered else "non-centred"
        lines.append(
            (
                f"mean-field k-hat, eight schools {name} (published {published})",
                f"{result.diagnostics.k_hat:.2f}",
                steps_of(result),
            )
        )
    key_x, key_w, key_y = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (10_000, 100))
    y = x @ jax.random.normal(key_w, (100,)) + 2.0 * jax.random.normal(key_y, (10_000,))

    def regression() -> None:
        w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([100]).to_event(1))
        sigma = numpyro.sample("sigma", dist.Gamma(0.5, 0.5))
        numpyro.sample("y", dist.Normal(x @ w, sigma).to_event(1), obs=y)

    target = vi.targets.from_numpyro(regression)
    result = vi.fit(jax.random.key(0), target, vi.methods.advi(), num_draws=4000)
    short = vi.fit(jax.random.key(0), target, adagrad(0.1, num_steps=5000), num_draws=4000)
    name = "mean-field k-hat, regression n = 10,000, K = 100"
    return [
        *lines,
        (f"{name} (published 0.61)", f"{result.diagnostics.k_hat:.2f}", steps_of(result)),
        (
            "that of the optimum, exactly",
            f"{exact_k(x):.2f}",
            "1 less the least eigenvalue of the regressors' correlations",
        ),
        (
            "that of the last of 5,000 steps of one draw, rates as in Stan's ADVI",
            f"{short.diagnostics.k_hat:.2f}",
            "eta 0.1",
        ),
    ]


def exact_k(x: Any) -> float:
    """k of p / q for the mean-field q of highest ELBO on a Gaussian p of precision x'x, up to a
    factor.

    q's precision is the diagonal Q of p's, P. E_q[(p/q)^m] is finite while m P - (m - 1) Q is
    positive definite, that is for m < 1 / (1 - a), a the least eigenvalue of Q^-1/2 P Q^-1/2, and k
    is 1 over the least m at which it is not.
    """
    precision = np.asarray(x, np.float64).T @ np.asarray(x, np.float64)
    scale = np.sqrt(np.diag(precision))
    return float(1 - np.linalg.eigvalsh(precision / np.outer(scale, scale)).min())
