"""The logits of guides of independent Bernoulli coordinates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.types import Array


def logits_of(q: Any, estimator: str) -> Array:
    """The logits of a Bernoulli guide, of its event shape.

    Raises:
      ValueError: q is no Bernoulli, or `Independent` Bernoullis.
    """
    base = q.base_dist if isinstance(q, dist.Independent) else q
    if isinstance(base, dist.BernoulliLogits):
        return jnp.broadcast_to(base.logits, base.batch_shape)
    if isinstance(base, dist.BernoulliProbs):
        return jnp.broadcast_to(jax.scipy.special.logit(base.probs), base.batch_shape)
    raise ValueError(
        f"{estimator} expects a guide of Bernoulli coordinates; got {type(base).__name__}. Take "
        "score or vimco."
    )
