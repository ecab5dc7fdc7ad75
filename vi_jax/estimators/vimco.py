"""VIMCO: the score-function gradient of the importance-weighted bound."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import draw, log_densities, require_independent


@declare(needs="log_mean", reparameterised=False)
def vimco(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """sum_k (L - L_{-k}) grad log q(z_k) + sum_k wbar_k grad log w_k (Mnih & Rezende 2016, eq. 8),
    L_{-k} the bound with log w_k replaced by the mean of the other log-weights.

    For any guide, discrete ones too; K >= 2. Arguments and result as for `reparam`; q need
    not be reparameterised.

    Raises:
      ValueError: K < 2, or a bound other than IWAE.
    """
    key, num_samples = require_call("vimco", key, bound, log_joint, q, num_samples)
    require_bound(
        bound,
        vimco,
        "its baselines are those of the log of a mean weight; take score for the elbo.",
    )
    require_independent(q, "vimco")
    if num_samples < 2:
        raise ValueError(f"vimco's baselines need num_samples of at least 2; got {num_samples}.")
    z = freeze(draw(key, q, num_samples))
    log_q = log_densities(q, z)
    log_w = model_path(log_joint, z) - log_q
    value = bound(log_w)
    fixed = freeze(log_w)
    others = (fixed.sum() - fixed) / (num_samples - 1)  # [K]
    baselines = jax.vmap(
        lambda k: bound(jnp.where(jnp.arange(num_samples) == k, others[k], fixed))
    )(jnp.arange(num_samples))
    signal = freeze(value) - baselines
    return surrogate(value, value + (signal * log_q).sum())
