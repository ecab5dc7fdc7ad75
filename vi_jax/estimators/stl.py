"""Sticking the landing: the pathwise gradient without the score of the guide."""

from collections.abc import Callable

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import draw, log_weights, require_reparameterised


@declare(needs="linear")
def stl(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    chunk: int | None = None,
) -> Array:
    """The reparameterised ELBO without the score of q, whose mean is 0 (Roeder et al. 2017, eq. 8).

    At q = posterior every sample's gradient is 0, where the plain estimator's is only 0 on average.
    Valid for the ELBO: under IWAE the score that is dropped has a mean (Tucker et al. 2019, sec.
    3); `dreg` is right there.

    Arguments, result and errors as for `reparam`; another bound is refused.
    """
    key, num_samples = require_call("stl", key, bound, log_joint, q, num_samples)
    require_bound(
        bound,
        stl,
        "the score that it drops has mean 0 under equal weights only; take dreg.",
    )
    require_reparameterised(q, "sticking the landing")
    z = draw(key, q, num_samples)
    # E[grad_q log q] = 0: drop the score, keep the mean
    return bound(log_weights(log_joint, freeze(q), z, chunk=chunk))
