"""REBAR: the score function with a relaxed control variate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vi_jax.arguments import require_call
from vi_jax.attributes import declare
from vi_jax.estimators._bernoulli import logits_of
from vi_jax.estimators._bounds import require_bound
from vi_jax.estimators._paths import draw_path, model_path, surrogate
from vi_jax.types import Array, Guide, LogJoint, freeze
from vi_jax.weights import log_densities, scalar


@declare(needs="linear", guides=("bernoulli",), reparameterised=False)
def rebar(
    key: Array,
    bound: Callable[[Array], Array],
    log_joint: LogJoint,
    q: Guide,
    *,
    num_samples: int,
    temperature: float = 0.5,
    scale: float = 1.0,
) -> Array:
    """[f(b) - eta f(s(z~))] grad log q(b) + eta grad f(s(z)) - eta grad f(s(z~)), REBAR (Tucker et
    al. 2017, eq. 8), with z the logistic noise behind b, z~ its redraw given b, and s a sigmoid of
    the given temperature; unbiased at any of them.

    log_joint has to take values in (0, 1) between the two of a Bernoulli, and be smooth there.

    Args:
      key, bound, log_joint, q, num_samples: as for `reparam`; q is Bernoulli.
      temperature: of the relaxation, above 0.
      scale: eta, of the control variate. Both are numbers to tune; minimise the variance in them to
        learn them.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: a bound other than the ELBO, a guide that is not Bernoulli, or a temperature that
        is not positive.
    """
    key, num_samples = require_call("rebar", key, bound, log_joint, q, num_samples)
    require_bound(bound, rebar, "its control variate is that of a mean.")
    logits = logits_of(q, "rebar")
    if not temperature > 0:
        raise ValueError(f"rebar expects a temperature above 0; got {temperature}.")
    z, b, redrawn = relaxed_pair(key, logits, num_samples)
    relaxed = [jax.nn.sigmoid(noise / temperature) for noise in (z, redrawn)]
    fixed = freeze(q)
    density = scalar(log_joint)

    def f_path(value: Array) -> Array:  # f through its argument alone, [K]
        return draw_path(lambda v: density(v) - fixed.log_prob(v), value)

    f_soft, f_redrawn = (f_path(value) for value in relaxed)
    log_p = model_path(log_joint, b)
    log_q = log_densities(q, b)
    signal = freeze(log_p - log_q - scale * f_redrawn)
    path = log_p + signal * log_q + scale * (f_soft - f_redrawn)
    return surrogate(bound(log_p - log_q), path.mean())


def relaxed_pair(key: Array, logits: Array, num_samples: int) -> tuple[Array, Array, Array]:
    """z = logits + logistic noise, b = 1[z > 0], and z~ ~ p(z | b), reparameterised (Tucker et al.
    2017, appendix C), [K, ...].
    """
    key_z, key_v = jax.random.split(key)
    shape = (num_samples, *logits.shape)
    tiny = jnp.finfo(logits.dtype).tiny
    u = jax.random.uniform(key_z, shape, logits.dtype, minval=tiny)
    v = jax.random.uniform(key_v, shape, logits.dtype, minval=tiny)
    z = logits + jnp.log(u) - jnp.log1p(-u)
    b = freeze((z > 0).astype(logits.dtype))
    theta = jax.nn.sigmoid(logits)
    # u given b: above or below 1 - theta
    within = jnp.where(b > 0, (1.0 - theta) + v * theta, v * (1.0 - theta))
    within = jnp.clip(within, tiny, 1.0 - jnp.finfo(logits.dtype).epsneg)
    return z, b, logits + jnp.log(within) - jnp.log1p(-within)
