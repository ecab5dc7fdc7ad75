"""DReG, the doubly reparameterised gradient of importance-weighted bounds."""

from collections.abc import Callable

import jax

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import path_factor, require_bound
from vi_jax.estimators._paths import scale_gradient
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import (
    draw,
    log_weights,
    require_independent,
    require_reparameterised,
)


@declare(needs="path_factor")
def dreg(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    chunk: int | None = None,
) -> Array:
    """The gradient of IWAE with the guide's score reparameterised once more: DReG (Tucker et al.
    2019, eq. 8).

        guide:  sum_k wbar_k^2 d log w_k / dz_k dz_k / dphi, the density of q frozen
        model:  sum_k wbar_k d log p / dtheta

    For VR-IWAE with alpha the guide's weights are alpha wbar_k + (1 - alpha) wbar_k^2, wbar_k ~
    w_k^(1 - alpha) (Daudel et al. 2023, theorem 2). Its signal-to-noise ratio rises with K where
    that of the plain estimator falls. z may be all the layers of a hierarchical guide: they are
    reparameterised together, so that no indirect score is left over.

    Valid for IWAE and VR-IWAE; on the ELBO's equal weights the square would return 1/K of the
    gradient.

    Arguments, result and errors as for `reparam`; another bound is refused.
    """
    key, num_samples = require_call("dreg", key, bound, log_joint, q, num_samples)
    require_bound(
        bound,
        dreg,
        "its squared weights are the gradient of those bounds alone; take stl for the ELBO.",
    )
    require_reparameterised(q, "dreg")
    require_independent(q, "dreg")
    z = draw(key, q, num_samples)
    weights = jax.grad(bound)(freeze(log_weights(log_joint, q, z, chunk=chunk)))  # wbar, [K]
    factor = path_factor(bound, weights)
    z = jax.tree.map(lambda leaf: scale_gradient(leaf, factor), z)
    return bound(log_weights(log_joint, freeze(q), z, chunk=chunk))
