"""The combination of the ELBO and the importance-weighted bound."""

import jax

from vi_jax.bounds.elbo import bound as elbo
from vi_jax.bounds.iwae import bound as iwae


def bound(log_w: jax.Array, *, beta: float | jax.Array) -> jax.Array:
    """beta ELBO + (1 - beta) IWAE_K on the same draws (Rainforth et al. 2018, eq. 14).

    Args:
      log_w: [K].
      beta: from 0 (IWAE) to 1 (ELBO).

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or beta is a number outside of [0, 1].
    """
    if isinstance(beta, int | float) and not 0.0 <= beta <= 1.0:
        raise ValueError(f"ciwae wants beta from 0 (IWAE) to 1 (ELBO); got {beta}.")
    return beta * elbo(log_w) + (1.0 - beta) * iwae(log_w)
