"""The numbers of a result: its diagnostics, and moments under weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import CHUNK
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


def discrete_of(result: Any) -> dict[str, np.ndarray]:
    """{discrete site: posterior probabilities of its values [*shape, K]}, of sites summed out: the
    mean over the samples, by smoothed weights where they can be trusted.
    """
    discrete = result.target.discrete
    if discrete is None:
        return {}
    log_w = result.weighted.log_weights
    if not result.diagnostics.trusted:
        log_w = jnp.full(log_w.shape, -jnp.log(float(len(log_w))), log_w.dtype)

    def mean(u: Array, weights: Array) -> Any:
        given = jax.lax.map(discrete, u, batch_size=min(CHUNK, len(u)))
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), given)

    found = jax.jit(mean)(result.weighted.u, jnp.exp(log_w))
    return {name: np.asarray(leaf) for name, leaf in found.items()}
