"""The reparameterised (pathwise) gradient."""

from collections.abc import Callable

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import draw, log_weights, require_reparameterised


@declare(needs="")
def reparam(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    chunk: int | None = None,
) -> Array:
    """bound(log_w) with z_k = g(phi, eps_k), differentiated through the samples and the density
    (Kingma & Welling 2013, eq. 4; Rezende et al. 2014, eq. 8).

    Valid for every bound that is a smooth function of log_w.

    Args:
      key: one typed PRNG key. bound: log_w [K] -> scalar. log_joint: z -> log p(x, z), a scalar in
      nats, differentiable. q: a reparameterised guide. num_samples: K. chunk: samples at a time,
      all at once if not given: bounds the memory at large K and leaves the
        value as it is.

    Returns:
      Nats, a scalar to maximise.

    Raises:
      ValueError: q is not reparameterised, K is not a positive whole number, or a density is not a
        scalar for one z.
    """
    key, num_samples = require_call("reparam", key, bound, log_joint, q, num_samples)
    require_reparameterised(q, "the reparameterised estimator")
    z = draw(key, q, num_samples)
    return bound(log_weights(log_joint, q, z, chunk=chunk))
