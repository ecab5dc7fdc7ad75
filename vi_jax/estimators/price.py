"""The second-order estimator for Gaussian guides, by Bonnet's and Price's theorems."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import draw, scalar


@declare(needs="linear", guides=("gaussian",))
def price(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """d/dmu E[f] = E[grad f], d/dSigma E[f] = 1/2 E[Hessian f] for q = N(mu, Sigma), f = log p(x,
    .) (Rezende et al. 2014, eq. 10 and 11), with the entropy in closed form.

    Costs a Hessian of D x D a sample; its noise is far below that of the reparameterised gradient
    where f is near-quadratic, and 0 where it is quadratic. First derivatives only. The value is the
    ELBO with the entropy exact.

    Arguments and result as for `reparam`.

    Raises:
      ValueError: a bound other than the ELBO, or a guide that is not a Gaussian vector.
    """
    key, num_samples = require_call("price", key, bound, log_joint, q, num_samples)
    require_bound(bound, price, "its theorems are about the mean of log p under a Gaussian.")
    loc, covariance, entropy = _moments(q)
    z = freeze(draw(key, q, num_samples))
    slopes = jax.vmap(jax.grad(scalar(log_joint)))(z).mean(0)  # [D]
    curvature = jax.vmap(jax.hessian(log_joint))(z).mean(0)  # [D, D]
    log_p = model_path(log_joint, z).mean()
    path = (
        log_p
        + (freeze(slopes) * loc).sum()
        + 0.5 * (freeze(curvature) * covariance).sum()
        + entropy
    )
    return surrogate(log_p + entropy, path)


def _moments(q: Any) -> tuple[Array, Array, Array]:
    """Mean [D], covariance [D, D] and entropy of a Gaussian guide."""
    if (
        isinstance(q, dist.Independent)
        and isinstance(q.base_dist, dist.Normal)
        and q.reinterpreted_batch_ndims == 1
    ):
        scale = jnp.broadcast_to(q.base_dist.scale, q.event_shape)
        loc = jnp.broadcast_to(q.base_dist.loc, q.event_shape)
        covariance = jnp.diag(scale**2)
        half_log_det = jnp.log(scale).sum()
    elif isinstance(q, dist.MultivariateNormal):
        loc = q.loc
        covariance = q.scale_tril @ q.scale_tril.T
        half_log_det = jnp.log(jnp.diagonal(q.scale_tril)).sum()
    else:
        raise ValueError(
            "price expects a Gaussian guide, diagonal or full, over a vector; got "
            f"{type(q).__name__}. Take reparam."
        )
    return loc, covariance, half_log_det + 0.5 * loc.shape[0] * (1.0 + jnp.log(2.0 * jnp.pi))
