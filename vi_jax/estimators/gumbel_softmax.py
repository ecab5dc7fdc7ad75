"""The Gumbel-softmax (Concrete) relaxation: a biased gradient for discrete guides, of low
variance.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bernoulli import logits_of
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import log_weights


@declare(needs="", guides=("bernoulli", "one_hot"), reparameterised=False, unbiased=False)
def gumbel_softmax(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    temperature: float = 0.5,
) -> Array:
    """bound(log p(x, s) - log q(s)) at relaxed samples s = softmax((logits + Gumbel noise) /
    temperature), the mass functions read at fractional values (Jang et al. 2017, eq. 2; Maddison et
    al. 2017).

    **Biased**: the value is no bound of log p(x) and the gradient that of another problem, nearer
    as the temperature falls, while its variance grows. log_joint has to take values between those
    of the guide, and be smooth there.

    Args:
      key, bound, log_joint, q, num_samples: as for `reparam`; q is Bernoulli, or one-hot
        categorical by logits.
      temperature: above 0.

    Raises:
      ValueError: a temperature that is not positive, or another guide.
    """
    key, num_samples = require_call("gumbel_softmax", key, bound, log_joint, q, num_samples)
    relaxed = relaxed_draws(key, q, num_samples, temperature, "gumbel_softmax")
    return bound(log_weights(log_joint, q, relaxed))


def relaxed_draws(
    key: Array, q: Any, num_samples: int, temperature: float, estimator: str
) -> Array:
    """Relaxed samples [K, *event_shape], differentiable in the logits."""
    if not temperature > 0:
        raise ValueError(f"{estimator} expects a temperature above 0; got {temperature}.")
    if _is_one_hot(q):
        noise = jax.random.gumbel(key, (num_samples, *q.logits.shape), q.logits.dtype)
        return jax.nn.softmax((q.logits + noise) / temperature, axis=-1)
    logits = logits_of(q, estimator)
    noise = jax.random.logistic(key, (num_samples, *logits.shape), logits.dtype)
    return jax.nn.sigmoid((logits + noise) / temperature)


def harden(relaxed: Array, q: Any) -> Array:
    """The discrete values that relaxed samples stand for."""
    if _is_one_hot(q):
        return jax.nn.one_hot(relaxed.argmax(-1), relaxed.shape[-1], dtype=relaxed.dtype)
    return (relaxed > 0.5).astype(relaxed.dtype)


def _is_one_hot(q: Any) -> bool:
    logits = getattr(q, "logits", None)
    return (
        logits is not None
        and len(q.event_shape) == 1
        and jnp.shape(logits)[-1:] == tuple(q.event_shape)
    )
