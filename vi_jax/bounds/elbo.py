"""The evidence lower bound."""

import jax

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w


@declare(linear=True, smooth=True)
def elbo(log_w: jax.Array) -> jax.Array:
    """1/K sum_k log w_k, the evidence lower bound (Jordan et al. 1999; Kingma & Welling 2013, eq.
    2: SGVB-A, L = K).

    Args:
      log_w: log p(x, z_k) - log q(z_k), one per sample, [K].

    Returns:
      Nats, a scalar; log p(x) - KL(q || p(z | x)) in expectation, log p(x) for every sample when q
      is the posterior.

    Raises:
      ValueError: log_w is not of shape [K].
    """
    return check_log_w(log_w).mean()
