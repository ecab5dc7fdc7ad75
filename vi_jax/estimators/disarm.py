"""DisARM: antithetic pairs for Bernoulli guides."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bernoulli import logits_of
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import log_densities


@declare(needs="linear", guides=("bernoulli",), reparameterised=False)
def disarm(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """1/2 (f(b) - f(b~)) (-1)^(b~_d) 1[b_d != b~_d] sigmoid(|a_d|) for each logit a_d, averaged
    over K / 2 pairs: DisARM (Dong et al. 2020, eq. 6; Yin et al. 2020), b = 1[u < sigmoid(a)] and
    b~ from 1 - u.

    Unbiased, two evaluations a pair, no temperature. Args and result as for `reparam`.

    Raises:
      ValueError: a bound other than the ELBO, a guide that is not Bernoulli, or an odd K.
    """
    key, num_samples = require_call("disarm", key, bound, log_joint, q, num_samples)
    require_bound(bound, disarm, "its pairs estimate the gradient of a mean.")
    logits = logits_of(q, "disarm")
    if num_samples < 2 or num_samples % 2:
        raise ValueError(f"disarm samples in pairs: num_samples has to be even; got {num_samples}.")
    u = jax.random.uniform(key, (num_samples // 2, *logits.shape), logits.dtype)
    probability = freeze(jax.nn.sigmoid(logits))
    pair = [(v < probability).astype(logits.dtype) for v in (u, 1.0 - u)]
    log_w = [model_path(log_joint, b) - freeze(log_densities(q, b)) for b in pair]
    gap = freeze(log_w[0] - log_w[1]).reshape(-1, *(1,) * logits.ndim)
    # (-1)^b~ where b and b~ differ
    slope = 0.5 * gap * (pair[0] - pair[1]) * freeze(jax.nn.sigmoid(jnp.abs(logits)))
    both = jnp.concatenate(log_w)
    return surrogate(bound(both), both.mean() + (freeze(slope.mean(0)) * logits).sum())
