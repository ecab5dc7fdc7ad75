"""The combination of the ELBO and the importance-weighted bound."""

import jax

from vi_jax.attributes import declare
from vi_jax.bounds.elbo import elbo
from vi_jax.bounds.iwae import iwae


@declare(smooth=True, example={"beta": 0.3})
def ciwae(log_w: jax.Array, *, beta: float | jax.Array) -> jax.Array:
    """beta ELBO + (1 - beta) IWAE_K on the same samples (Rainforth et al. 2018, eq. 14).

    Args:
      log_w: [K].
      beta: from 0 (IWAE) to 1 (ELBO).

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or beta is a number outside of [0, 1].
    """
    if isinstance(beta, int | float) and not 0.0 <= beta <= 1.0:
        raise ValueError(f"ciwae expects beta from 0 (IWAE) to 1 (ELBO); got {beta}.")
    return beta * elbo(log_w) + (1.0 - beta) * iwae(log_w)
