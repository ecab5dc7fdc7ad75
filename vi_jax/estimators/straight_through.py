"""The straight-through estimator: discrete values forwards, relaxed gradients backwards."""

from collections.abc import Callable

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._paths import surrogate
from vi_jax.estimators.gumbel_softmax import harden, relaxed_draws
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import log_weights


@declare(needs="", guides=("bernoulli", "one_hot"), reparameterised=False, unbiased=False)
def straight_through(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    temperature: float = 0.5,
) -> Array:
    """bound(log w) at discrete samples, differentiated as if they were the relaxed ones (Bengio et
    al. 2013; Jang et al. 2017, sec. 2.2).

    The value is the bound's; the gradient is **biased**. Arguments and errors as for
    `gumbel_softmax`.
    """
    key, num_samples = require_call("straight_through", key, bound, log_joint, q, num_samples)
    relaxed = relaxed_draws(key, q, num_samples, temperature, "straight_through")
    z = surrogate(harden(relaxed, q), relaxed)
    return bound(log_weights(log_joint, q, z))
