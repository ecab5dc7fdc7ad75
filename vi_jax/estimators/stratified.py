"""Samples of every component of a mixture, not of components drawn by their weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import log_weights, require_reparameterised


@declare(needs="", guides=("mixture",))
def stratified(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """sum_s pi_s bound(log w_s1..log w_sK) with z_sk from component s of a mixture of S, and the
    density of the whole mixture in the weights (Morningstar et al. 2021, eq. 5); of IWAE at
    pi_s = 1 / S it is MISELBO (Kviman et al. 2022, eq. 3).

        log w_sk = log p(x, z_sk) - log sum_r pi_r q_r(z_sk)

    A lower bound of log p(x) where `bound` is one of importance weights: pi is outside, and the
    mean over s of E[w_s] is p(x). At S = 1 it is the reparameterised bound. The pooled log of
    the mean over all S K weights is tighter, and another number.

    Args:
      key, bound, log_joint: as for `reparam`.
      q: a guide with `sample_stratified`, as `vi_jax.families.mixture` makes.
      num_samples: K, of each component; the work is S K.

    Returns:
      Nats, a scalar to maximise, differentiable in the mixture's weights, too.

    Raises:
      ValueError: q has no components, or K is not a positive whole number, or a density is not a
        scalar for one z.
    """
    key, num_samples = require_call("stratified", key, bound, log_joint, q, num_samples)
    require_reparameterised(q, "stratified")
    if not hasattr(q, "sample_stratified"):
        raise ValueError(
            f"stratified samples each component of a mixture; got {type(q).__name__}, which has "
            "none. Take vi_jax.families.mixture, or reparam."
        )
    z, log_pi = q.sample_stratified(key, (num_samples,))  # leaves [K, S, ...], and [S]
    of_component = jax.vmap(lambda z: bound(log_weights(log_joint, q, z)), in_axes=1)
    return jnp.exp(log_pi) @ of_component(z)
