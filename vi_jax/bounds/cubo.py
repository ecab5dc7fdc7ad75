"""The chi upper bound."""

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w


@declare(side="upper", smooth=True)
def cubo(log_w: jax.Array, *, order: float = 2.0) -> jax.Array:
    """1/n log (1/K) sum_k w_k^n, CUBO_n (Dieng et al. 2017, eq. 4): above log p(x) for n >= 1.

    1/n log E_q w^n is an upper bound; the logarithm of its Monte Carlo mean is below it in
    expectation (Jensen), and with few samples or heavy-tailed weights can fall below log p(x): read
    it with many samples, beside a k-hat. To *fit* by it, descend exp(n CUBO_n), whose gradient is
    unbiased (sec. 3).

    Args:
      log_w: [K].
      order: n, at least 1.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or n is below 1.
    """
    if not order >= 1.0:
        raise ValueError(f"cubo is an upper bound for order >= 1; got {order}.")
    return (jax.nn.logsumexp(order * check_log_w(log_w)) - jnp.log(log_w.shape[0])) / order
