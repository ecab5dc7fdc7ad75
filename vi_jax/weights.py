"""Samples of a guide and their log-weights: the vmap over K."""

from typing import Any

import jax

from vi_jax.arguments import as_count, require_scalars
from vi_jax.types import Array, Guide, LogJoint


def draw(key: Array, q: Guide, num_samples: int) -> Any:
    """z_1..z_K ~ q, every leaf [K, ...].

    Raises:
      ValueError: num_samples is not a positive whole number.
    """
    num_samples = as_count(num_samples, "num_samples", what="K")
    return q.sample(key, (num_samples,))


def log_weights(log_joint: LogJoint, q: Guide, z: Any, *, chunk: int | None = None) -> Array:
    """log p(x, z_k) - log q(z_k), [K]; with `chunk`, that many at a time, recomputed in the
    backward pass: less memory, same value.

    Raises:
      ValueError: log_joint or log q is not a scalar for one z, which would mix examples by
        broadcasting.
    """

    def one(z_k: Any) -> Array:
        log_p = log_joint(z_k)
        log_q = q.log_prob(z_k)
        require_scalars(log_joint=log_p, q_log_prob=log_q)
        return log_p - log_q

    if chunk is None:
        return jax.vmap(one)(z)
    return jax.lax.map(jax.checkpoint(one), z, batch_size=chunk)


def log_densities(q: Guide, z: Any) -> Array:
    """log q(z_k), [K]; ValueError where it is not a scalar for one z."""

    def one(z_k: Any) -> Array:
        log_q = q.log_prob(z_k)
        require_scalars(q_log_prob=log_q)
        return log_q

    return jax.vmap(one)(z)


def scalar(log_joint: LogJoint) -> LogJoint:
    """The same density, whose values are checked to be one floating-point number for one z."""

    def checked(z: Any) -> Array:
        value = log_joint(z)
        require_scalars(log_joint=value)
        return value

    return checked


def require_reparameterised(q: Guide, estimator: str) -> None:
    """A sentence for guides whose samples carry no gradient (numpyro says so by `has_rsample`)."""
    if getattr(q, "has_rsample", True) is False:
        raise ValueError(
            f"{estimator} differentiates through the samples, and those of {type(q).__name__} are "
            "not reparameterised: "
            "their gradient would be 0 or wrong. Take a guide that is, or a "
            "score-function estimator."
        )


def require_independent(q: Guide, estimator: str) -> None:
    """A sentence for guides whose samples depend on each other (`vi_jax.sampling`)."""
    if getattr(q, "independent_draws", True) is False:
        raise ValueError(
            f"{estimator} expects samples that are independent of each other, and those of "
            f"{type(q).__name__} are not: its gradient "
            "would be biased. Take reparam or stl, or the guide as it was."
        )
