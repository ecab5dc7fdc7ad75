"""The score-function gradient with leave-one-out baselines."""

from collections.abc import Callable

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import draw, log_densities, require_independent


@declare(needs="linear", reparameterised=False)
def score(
    key: Array, bound: Callable[[Array], Array], log_joint: LogJoint, q: Guide, *, num_samples: int
) -> Array:
    """1/K sum_k (f_k - mean of the other f_j) grad log q(z_k), f = log w: REINFORCE with
    leave-one-out baselines, RLOO (Salimans & Knowles 2014; Kool et al. 2019, eq. 8), for any guide,
    discrete ones too.

    The baseline of a sample does not depend on it, so that the mean is the gradient of the ELBO.
    Needs K >= 2.

    Arguments and result as for `reparam`; q need not be reparameterised.

    Raises:
      ValueError: K < 2, or a bound other than the ELBO.
    """
    key, num_samples = require_call("score", key, bound, log_joint, q, num_samples)
    require_bound(
        bound,
        score,
        "its weights are those of a mean; take vimco for iwae.",
    )
    require_independent(q, "the score-function estimator")
    if num_samples < 2:
        raise ValueError(
            f"leave-one-out baselines need num_samples of at least 2; got {num_samples}."
        )
    z = freeze(draw(key, q, num_samples))
    log_p = model_path(log_joint, z)
    log_q = log_densities(q, z)
    f = freeze(log_p - log_q)
    # f_k less the mean of the others
    advantage = (f - f.mean()) * (num_samples / (num_samples - 1.0))
    return surrogate(bound(log_p - log_q), (log_p + advantage * log_q).mean())
