"""Lower bounds of log p(x) for one example in one call: a bound and an estimator, composed.

`vmap` over examples for a batch; `jax.grad` of any of these is its reparameterised gradient.
"""

from collections.abc import Callable
from typing import Any

import jax

from vi_jax import bounds, estimators
from vi_jax.arguments import (
    as_key,
    require_call,
    require_function,
    require_guide,
    require_scalars,
)
from vi_jax.kl import kl_divergence
from vi_jax.types import Array, Guide, LogJoint
from vi_jax.weights import draw, require_reparameterised


def elbo(key: Array, log_joint: LogJoint, q: Guide, num_samples: int = 1) -> Array:
    """E_q[log p(x, z) - log q(z)] by `num_samples` draws: SGVB-A (Kingma & Welling 2013, eq. 6).

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), a scalar in nats.
      q: any pytree with `sample` and `log_prob`; every numpyro distribution is one.
      num_samples: draws.

    Returns:
      Nats, a scalar to maximise; a lower bound of log p(x) in expectation.

    Raises:
      ValueError: q is not reparameterised, or a density is not a scalar for one z.
    """
    key, num_samples = require_call("elbo", key, bounds.elbo, log_joint, q, num_samples)
    return estimators.reparam(key, bounds.elbo, log_joint, q, num_samples=num_samples)


def analytic_elbo(
    key: Array, log_lik: Callable[[Any], Array], q: Any, prior: Any, num_samples: int = 1
) -> Array:
    """E_q[log p(x | z)] - KL(q || p(z)), the KL in closed form: SGVB-B (Kingma & Welling 2013, eq.
    7).

    Its variance is usually several times smaller than that of `elbo`.

    Args:
      key: one typed PRNG key.
      log_lik: z -> log p(x | z), a scalar in nats.
      q, prior: distributions whose KL has a closed form (see `vi_jax.kl_divergence`).
      num_samples: draws for the first term.

    Returns:
      Nats, a scalar to maximise; a lower bound of log p(x) in expectation.

    Raises:
      NotImplementedError: the KL has no closed form; take `elbo`.
      ValueError: q is not reparameterised, or log_lik is not a scalar for one z.
    """
    key = as_key(key, "analytic_elbo")
    require_guide(q, "analytic_elbo")
    require_function(log_lik, "analytic_elbo", name="log_lik")
    require_guide(prior, "analytic_elbo", name="prior")
    require_reparameterised(q, "analytic_elbo")
    kl = kl_divergence(q, prior)
    if kl.ndim:
        raise ValueError(
            f"analytic_elbo expects the KL to be one number; got shape {kl.shape}. Give q and the "
            "prior one event axis, .to_event(1); vmap over examples."
        )

    def term(z: Any) -> Array:
        value = log_lik(z)
        require_scalars(log_lik=value)
        return value

    return jax.vmap(term)(draw(key, q, num_samples)).mean() - kl


def iwae(key: Array, log_joint: LogJoint, q: Guide, num_samples: int) -> Array:
    """log (1/K) sum_k p(x, z_k) / q(z_k), the importance-weighted bound with K = `num_samples`
    (Burda et al. 2016, eq. 8).

    Arguments, result and errors as for `elbo`.
    """
    key, num_samples = require_call("iwae", key, bounds.iwae, log_joint, q, num_samples)
    return estimators.reparam(key, bounds.iwae, log_joint, q, num_samples=num_samples)
