"""The numbers of a result: its diagnostics, and moments under weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array


class Diagnostics(NamedTuple):
    """What is known of how good the answer is; numbers in nats."""

    verdict: str  # 'reliable', 'corrected only', 'not reliable' or 'not converged'
    advice: str  # the next step to take
    elbo: float
    elbo_stderr: float
    log_evidence: float  # by importance sampling; as good as k_hat says
    log_evidence_stderr: float
    k_hat: float
    k_threshold: float
    trusted: bool  # moments by smoothed weights can be trusted
    effective: float  # samples that the weighted ones are worth
    num_draws: int
    num_bad: int  # samples at which the log density was not a number


def moments_of(constrain: Callable[[Array], Any], u: Array, weights: Array) -> tuple[Any, Any]:
    """(mean, standard deviation) of every site over draws u [S, D] with weights [S]."""

    def both(u: Array, weights: Array) -> tuple[Any, Any]:
        z = jax.vmap(constrain)(u)
        mean = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), z)
        return mean, jax.tree.map(
            lambda leaf, m: jnp.sqrt(jnp.tensordot(weights, (leaf - m) ** 2, 1)), z, mean
        )

    return jax.jit(both)(u, weights)
