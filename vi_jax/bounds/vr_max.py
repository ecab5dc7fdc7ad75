"""VR-max, the limit of the variational Renyi bound at alpha -> -inf."""

import jax

from vi_jax.bounds._check import check_log_w


def vr_max(log_w: jax.Array) -> jax.Array:
    """max_k log w_k (Li & Turner 2016, sec. 4.2): the gradient of one sample, the best.

    At most log K above IWAE on the same samples; no bound of log p(x) in general.

    Args:
      log_w: [K].

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K].
    """
    return check_log_w(log_w).max()
