"""The multiply importance-weighted bound: a mean of importance-weighted bounds."""

import jax

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w
from vi_jax.bounds.iwae import iwae


@declare(grouped=True, smooth=True, example={"num_groups": 1})
def miwae(log_w: jax.Array, *, num_groups: int) -> jax.Array:
    """1/M sum_m log (1/L) sum_l w_{m,l}, K = M L samples in M groups (Rainforth et al. 2018, eq.
    13).

    Between the ELBO (M = K) and IWAE (M = 1). More groups raise the signal-to-noise ratio of the
    guide's gradient, more samples in each tighten the bound.

    Args:
      log_w: [K].
      num_groups: M, which divides K.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or M does not divide K.
    """
    num = check_log_w(log_w).shape[0]
    if num_groups < 1 or num % num_groups:
        raise ValueError(
            f"miwae expects num_groups to divide the number of samples; got {num_groups} groups of "
            f"{num} samples."
        )
    return jax.vmap(iwae)(log_w.reshape(num_groups, num // num_groups)).mean()
