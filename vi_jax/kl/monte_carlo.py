"""Monte Carlo KL(q || p) with a standard error, for every pair that has densities."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.arguments import as_count, as_key, require_guide, require_pair

Array = jax.Array


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, of the same shape and unit."""

    value: Array
    stderr: Array


def kl_monte_carlo(key: Array, q: Any, p: Any, *, num_samples: int) -> Estimate:
    """KL(q || p) as the mean of log q(z_k) - log p(z_k) over z_k ~ q; unbiased, may be negative.

    Args:
      q, p: any guides.
      num_samples: at least 2, so that there is a standard error.

    Returns:
      Estimate(value, stderr), nats, of the broadcast batch shape.
    """
    return _mean_and_stderr(_log_ratio("kl_monte_carlo", key, q, p, num_samples))


def kl_monte_carlo_controlled(key: Array, q: Any, p: Any, *, num_samples: int) -> Estimate:
    """KL(q || p) as the mean of r_k - 1 - log r_k with r = p(z) / q(z); unbiased, never negative.

    The control variate r - 1 has mean 0 under q where q covers p; its coefficient -1 makes every
    term non-negative (the Bregman divergence of -log). Better than `kl_monte_carlo` where q is near
    p; where p has mass that q misses, r has heavy
    tails: compare the standard errors. Arguments and result as there.
    """
    log_r = -_log_ratio("kl_monte_carlo_controlled", key, q, p, num_samples)
    return _mean_and_stderr(jnp.expm1(log_r) - log_r)


def _log_ratio(caller: str, key: Array, q: Any, p: Any, num_samples: int) -> Array:
    key = as_key(key, caller)
    require_guide(q, caller)
    require_guide(p, caller, name="p")
    if hasattr(q, "event_shape") and hasattr(p, "event_shape"):
        require_pair(caller, q, p)
    num_samples = as_count(num_samples, "num_samples", least=2, what="of a standard error")
    z = q.sample(key, (num_samples,))
    return q.log_prob(z) - p.log_prob(z)  # [K, ...]


def _mean_and_stderr(terms: Array) -> Estimate:
    return Estimate(terms.mean(0), terms.std(0, ddof=1) / terms.shape[0] ** 0.5)
