"""The second-order estimator for Gaussian guides, by Bonnet's and Price's theorems."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.distributions import Program
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

    Costs a Hessian of D x D a sample; the noise of the covariance's gradient is far below that of
    the reparameterised one where f is near-quadratic, and 0 where it is quadratic; that of the
    mean's gradient is the same. First derivatives only. The value is the
    ELBO with the entropy exact. Of a `Program` of independent Gaussians, as `models.dlgm` has, it
    goes layer by layer: a Hessian for each, in the latents of that layer alone.

    Arguments and result as for `reparam`.

    Raises:
      ValueError: a bound other than the ELBO, or a guide that is not a Gaussian vector, or a
        Program of them where none depends on another.
    """
    key, num_samples = require_call("price", key, bound, log_joint, q, num_samples)
    require_bound(bound, price, "its theorems are about the mean of log p under a Gaussian.")
    z = freeze(draw(key, q, num_samples))
    moments = {name: _moments(layer) for name, layer in _layers(q, z).items()}
    slopes = jax.vmap(jax.grad(scalar(log_joint)))(z)
    log_p = model_path(log_joint, z).mean()
    value = log_p
    path = log_p
    for name, (loc, covariance, entropy) in moments.items():
        slope = _of_layer(slopes, name).mean(0)  # [D]
        curvature = _hessians(log_joint, z, name).mean(0)  # [D, D]
        along = (freeze(slope) * loc).sum() + 0.5 * (freeze(curvature) * covariance).sum()
        value = value + entropy
        path = path + along + entropy
    return surrogate(value, path)


def _layers(q: Any, z: Any) -> dict[str | None, Any]:
    """{site: its Gaussian} of a Program, or {None: q}."""
    if not isinstance(q, Program):
        return {None: q}
    visits = q.visits(jax.tree.map(lambda leaf: leaf[0], z))
    dependent = sorted(name for name, visit in visits.items() if visit.given)
    if dependent:
        raise ValueError(
            "price expects a Gaussian guide, or a Program of layers that depend on no other and "
            f"say so, site(name, q, given=()); here {dependent} depend on others. Take reparam."
        )
    return {name: visit.density for name, visit in visits.items()}


def _of_layer(z: Any, name: str | None) -> Any:
    return z if name is None else z[name]


def _hessians(log_joint: LogJoint, z: Any, name: str | None) -> Array:
    """Of log p in one layer, the others held, [K, D, D]."""

    def one(z_k: Any) -> Array:
        def of_layer(part: Array) -> Array:
            if name is None:
                return log_joint(part)
            return log_joint({**z_k, name: part})

        return jax.hessian(of_layer)(_of_layer(z_k, name))

    return jax.vmap(one)(z)


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
    elif getattr(q, "is_gaussian", False):  # a guide of `vi_jax.families`
        return q.mean, q.covariance_matrix, q.entropy()
    else:
        raise ValueError(
            "price expects a Gaussian guide, diagonal, full or of rank-one precision, over a "
            f"vector; got {type(q).__name__}. Take reparam."
        )
    return loc, covariance, half_log_det + 0.5 * loc.shape[0] * (1.0 + jnp.log(2.0 * jnp.pi))
