"""The generalised doubly reparameterised gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import attribute, declare
from vi_jax.distributions.layers import from_noise, to_noise
from vi_jax.estimators._bounds import path_factor, require_bound
from vi_jax.estimators._paths import scale_gradient, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import (
    draw,
    log_densities,
    log_weights,
    require_independent,
    require_reparameterised,
)


@declare(needs="smooth")
def gdreg(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    prior: Any = None,
    chunk: int | None = None,
) -> Array:
    """DReG for any smooth bound, and for the parameters of a prior as well as the guide's (Bauer &
    Mnih 2021, eq. 6 and 13).

    With g_k = d bound / d log w_k and h_k = d^2 bound / d log w_k^2, of which IWAE's are wbar_k and
    wbar_k - wbar_k^2:

        guide:  sum_k (g_k - h_k) d log w_k / dz_k  dT_phi(eps_k) / dphi
        prior:  sum_k (h_k d log w_k / dz_k + g_k d log(q / p) / dz_k)  dT_theta(eps) / dtheta
        the rest of the model:  sum_k g_k d log p / dtheta, as it stands

    with z_k = T_phi(eps_k) and the density of q frozen for the guide, eps = T_theta^-1(z_k) for the
    prior. So this is `stl` on the ELBO and `dreg` on (VR-)IWAE as far as the guide goes. The line
    of the prior takes the place of its score, sum_k g_k d log p(z_k) / dtheta: the two have one
    mean whatever density `prior` is, so that their difference is added to the gradient of
    log_joint; a `prior` that is not the one in log_joint adds noise, not bias. It has less noise
    than the score where the data say little about z and the guide is near its optimum, more where
    they say much: measure. Hierarchical guides and priors: `vi.distributions.Program`, whose sites
    are reparameterised together, which leaves no indirect score.

    Valid for bounds that are twice differentiable in log_w, that is all but VR-max; other than for
    the ELBO, IWAE and VR-IWAE, the second derivatives cost K^2 numbers. First derivatives only.

    Args:
      key, bound, log_joint, q, num_samples, chunk: as for `reparam`; log_joint includes
        the prior.
      prior: p(z), a density of which `vi.distributions.to_noise` knows the transport, holding the
        parameters to differentiate in.

    Returns:
      Nats, a scalar to maximise.

    Raises:
      ValueError: as for `reparam`; another bound, samples that depend on each other, or a
        prior without a transport.
    """
    key, num_samples = require_call("gdreg", key, bound, log_joint, q, num_samples)
    require_bound(bound, gdreg, "it needs a second derivative; take reparam.")
    require_reparameterised(q, "gdreg")
    require_independent(q, "gdreg")
    z = draw(key, q, num_samples)
    weight, factor = _derivatives(bound, freeze(log_weights(log_joint, q, z, chunk=chunk)))
    scaled = jax.tree.map(lambda leaf: scale_gradient(leaf, factor), z)
    value = bound(log_weights(log_joint, freeze(q), scaled, chunk=chunk))
    if prior is None:
        return value
    for_prior = _path_for_score(log_joint, q, prior, freeze(z), weight, 1.0 - factor)
    return surrogate(value, value + for_prior)


def _derivatives(bound: Callable[[Array], Array], log_w: Array) -> tuple[Array, Array]:
    """g_k, and 1 - h_k / g_k (1 where g_k is 0), [K] each."""
    weight = jax.grad(bound)(log_w)
    if attribute(bound, "linear", False):
        return weight, jnp.ones_like(weight)
    factor = path_factor(bound, weight)
    if factor is not None:
        return weight, factor
    second = jnp.diagonal(jax.jacfwd(jax.grad(bound))(log_w))
    is_zero = weight == 0.0
    return weight, 1.0 - jnp.where(is_zero, 0.0, second / jnp.where(is_zero, 1.0, weight))


def _path_for_score(
    log_joint: LogJoint, q: Guide, prior: Any, z: Any, weight: Array, bend: Array
) -> Array:
    """Of mean 0 as a gradient in the prior's parameters: the line of the prior less its score."""

    def pull(z: Any, weight: Array, bend: Array) -> Array:
        log_q = q.log_prob(z)
        return weight * (bend * (log_joint(z) - log_q) + log_q - prior.log_prob(z))

    slope = freeze(jax.vmap(jax.grad(pull))(z, weight, bend))
    # z, as a function of the prior's parameters
    moved = jax.vmap(lambda z: from_noise(prior, freeze(to_noise(prior, z))))(z)
    along = jax.tree.map(lambda slope, moved: (slope * moved).sum(), slope, moved)
    return sum(jax.tree.leaves(along)) - (weight * log_densities(prior, z)).sum()
