"""The variational Renyi bound."""

import math

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w


@declare(smooth=True, example={"alpha": 0.5})
def renyi(log_w: jax.Array, *, alpha: float) -> jax.Array:
    """1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha), VR-alpha (Li & Turner 2016, eq. 13).

    alpha -> 1 is the ELBO, alpha = 0 IWAE, alpha -> -inf VR-max. For alpha > 0 a lower bound of log
    p(x), for alpha < 0 an upper one as K grows; the Monte Carlo mean is itself biased towards the
    ELBO (theorem 2). Near alpha = 1 the ratio is taken by its series in (1 - alpha), so that
    nothing cancels.

    Args:
      log_w: [K].
      alpha: any number but +-inf.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or alpha is not finite.
    """
    check_log_w(log_w)
    if not math.isfinite(alpha):
        raise ValueError(
            f"renyi expects a finite alpha; got {alpha}. Take vr_max for alpha -> -inf."
        )
    power = 1.0 - alpha
    if abs(power) < 1e-4:  # log E e^(t l) / t = E l + t Var l / 2 + O(t^2)
        return log_w.mean() + 0.5 * power * log_w.var()
    return (jax.nn.logsumexp(power * log_w) - jnp.log(log_w.shape[0])) / power
