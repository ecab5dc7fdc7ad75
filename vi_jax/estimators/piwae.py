"""PIWAE: the gradient of one bound for the model, of another for the guide."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import draw_path, model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import draw, log_densities, require_reparameterised


@declare(needs="grouped")
def piwae(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """The model's gradient of IWAE over all K samples, the guide's gradient of `bound` = MIWAE on
    the same (Rainforth et al. 2018, sec. 5, eq. 16): the tight bound where it helps, the better
    signal-to-noise ratio where that does.

    Valid for MIWAE, e.g. functools.partial(vi.bounds.miwae, num_groups=8). The value is IWAE_K.
    First derivatives only.

    Arguments and errors as for `reparam`; another bound is refused.
    """
    key, num_samples = require_call("piwae", key, bound, log_joint, q, num_samples)
    require_bound(bound, piwae, "the guide maximises MIWAE, the model IWAE, on the same samples.")
    require_reparameterised(q, "piwae")
    z = draw(key, q, num_samples)
    log_q = log_densities(q, z)
    for_model = jax.nn.logsumexp(model_path(log_joint, z) - freeze(log_q)) - jnp.log(num_samples)
    for_guide = bound(draw_path(log_joint, z) - log_q)
    return surrogate(for_model, for_model + for_guide)
