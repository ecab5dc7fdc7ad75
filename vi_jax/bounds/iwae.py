"""The importance-weighted bound."""

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w


def _path_factor(weights: jax.Array) -> jax.Array:
    """d^2/dl^2 of a logsumexp is w - w^2, its slope w: 1 - (w - w^2) / w = w."""
    return weights


@declare(log_mean=True, smooth=True, path_factor=_path_factor)
def iwae(log_w: jax.Array) -> jax.Array:
    """log (1/K) sum_k w_k, the importance-weighted bound (Burda et al. 2016, eq. 8).

    Args:
      log_w: log p(x, z_k) - log q(z_k), one per sample, [K].

    Returns:
      Nats, a scalar; log p(x) for every sample when q is the posterior. In expectation it rises
      with K towards log p(x), and is the ELBO at K = 1.

    Raises:
      ValueError: log_w is not of shape [K].
    """
    log_w = check_log_w(log_w)
    return jax.nn.logsumexp(log_w) - jnp.log(log_w.shape[0])
