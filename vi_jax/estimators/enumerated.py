"""Exact enumeration: the ELBO of guides with a small discrete support."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.arguments import require_functions
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import scalar

MAX_POINTS = 65_536


@declare(needs="linear", reparameterised=False)
def enumerated(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """sum_z q(z) [log p(x, z) - log q(z)] over the whole support: the ELBO itself, and its
    gradient, without noise.

    Args:
      key, num_samples: not used; there so that estimators are alike.
      bound: the ELBO.
      log_joint: z -> log p(x, z), a scalar in nats.
      q: a numpyro distribution that can list its support, or `Independent` coordinates of one.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: another bound, no finite support, or one of more than 65,536 points.
    """
    del key, num_samples
    require_functions("enumerated", bound, log_joint, q)
    require_bound(bound, enumerated, "an expectation over K samples has support^K points.")
    support = enumerate_support(q)
    log_q = jax.vmap(q.log_prob)(support)
    log_p = jax.vmap(scalar(log_joint))(support)
    seen = log_q > -jnp.inf  # a point of probability 0 adds 0
    terms = jnp.where(seen, jnp.exp(log_q) * (log_p - jnp.where(seen, log_q, 0.0)), 0.0)
    return terms.sum()


def enumerate_support(q: Any) -> Array:
    """All points of a guide, [S, *event_shape].

    Raises:
      ValueError: it cannot list them, or they are too many.
    """
    base = q
    shape = ()
    if hasattr(q, "reinterpreted_batch_ndims"):
        base = q.base_dist
        shape = q.event_shape
    if not getattr(base, "has_enumerate_support", False):
        raise ValueError(
            f"{type(q).__name__} cannot list its support; enumeration expects a guide that can, "
            "such as a categorical."
        )
    with jax.ensure_compile_time_eval():  # the support is a constant, also where q is traced
        points = np.asarray(base.enumerate_support(expand=False))
    values = points.reshape(points.shape[0], *points.shape[1 + len(base.batch_shape) :])
    inner = base.event_shape
    count = len(values)
    coordinates = int(np.prod(base.batch_shape, dtype=int))
    if count**coordinates > MAX_POINTS:
        raise ValueError(
            f"the support has {count}^{coordinates} points, more than {MAX_POINTS:,}; take score, "
            "disarm or vimco."
        )
    if not base.batch_shape:
        return jnp.asarray(values)
    rows = np.array(list(itertools.product(range(count), repeat=coordinates)))
    points = values[rows].reshape(-1, *base.batch_shape, *inner)[..., :]
    return jnp.asarray(points.reshape(-1, *(shape or base.batch_shape)))
