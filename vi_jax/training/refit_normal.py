"""The Gaussian guide of one example, its mean and scale moved for that example alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax

from vi_jax.arguments import as_count, as_key
from vi_jax.kl import kl_divergence
from vi_jax.losses import densities_of
from vi_jax.types import Array, Model, Params, freeze


def refit_normal(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_steps: int = 100,
    learning_rate: float = 0.1,
    num_samples: int = 4,
) -> Any:
    """The guide of one example after its mean and log scale climbed that example's ELBO, from where
    the encoder puts them (semi-amortised; Kim et al. 2018). Nothing else is moved, so that many
    examples fit side by side under vmap; `refit_guide` takes any guide, and moves the encoder.

    Args:
      key: one typed PRNG key.
      model, params: with densities, a guide Normal(loc, scale) over [D] and a closed KL.
      x: one example.
      num_steps: of Adam.
      learning_rate: at the start; it falls to 0 by a cosine.
      num_samples: of z at each step.

    Returns:
      Normal(loc, scale) over [D].

    Raises:
      ValueError: the model has no densities, or its guide is of another kind.
    """
    key = as_key(key, "refit_normal")
    as_count(num_steps, "num_steps")
    as_count(num_samples, "num_samples")
    densities = densities_of(model, "refit_normal")
    held = freeze(params)
    q = densities.guide(held, x)
    if not isinstance(getattr(q, "base_dist", None), dist.Normal):
        raise ValueError(
            f"refit_normal expects a guide Normal(loc, scale); got {type(q).__name__}."
        )
    prior = densities.prior(held, x)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def value(where: Any, noise: Array) -> Array:
        loc, log_scale = where
        z = loc + jnp.exp(log_scale) * noise  # [S, D]
        log_lik = jax.vmap(lambda z: densities.log_lik(held, x, z))(z)
        return jnp.mean(log_lik) - kl_divergence(_normal(where), prior)

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        where, state = carry
        key_step = jax.random.fold_in(key, number)
        noise = jax.random.normal(key_step, (num_samples, *where[0].shape), where[0].dtype)
        slope = jax.grad(lambda where: -value(where, noise))(where)
        moves, state = optimiser.update(slope, state)
        return (optax.apply_updates(where, moves), state), None

    where = (q.base_dist.loc, jnp.log(q.base_dist.scale))
    start = (where, optimiser.init(where))
    (where, _), _ = jax.lax.scan(step, start, jnp.arange(num_steps))
    return _normal(where)


def _normal(where: Any) -> Any:
    loc, log_scale = where
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)
