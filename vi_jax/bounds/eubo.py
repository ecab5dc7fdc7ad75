"""The evidence upper bound."""

import jax

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w
from vi_jax.bounds._means import tilted_mean


@declare(side="upper", smooth=True)
def eubo(log_w: jax.Array) -> jax.Array:
    """E_p(z|x)[log p(x, z) - log q(z)] = log p(x) + KL(p(z|x) || q), by self-normalised weights:
    sum_k wbar_k log w_k (Ji & Shen 2019, eq. 3).

    The self-normalised mean is biased downwards at small K, to IWAE - something non-negative at K =
    1, where it is log w_1. With exact posterior samples take the plain mean of their log w instead,
    which is unbiased.

    Args:
      log_w: [K], of samples from q.

    Returns:
      Nats, a scalar; never below IWAE on the same samples.

    Raises:
      ValueError: log_w is not [K].
    """
    return tilted_mean(check_log_w(log_w))
