"""What amortisation costs: the guide of one example refitted to that example alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax.evidence import elbo
from vi_jax.losses import densities_of, log_joint
from vi_jax.types import Array, Model, Params, freeze
from vi_jax.weights import require_reparameterised


class Refitted(NamedTuple):
    """The ELBO of an example, nats, by the same noise."""

    amortised: Array  # with the guide of the trained encoder
    halfway: Array  # after half of the steps: near `refitted`, if those were enough
    refitted: Array  # with the encoder trained on that example alone

    @property
    def gap(self) -> Array:
        """The amortisation gap of Cremer et al. (2018), as far as the steps close it."""
        return self.refitted - self.amortised


def refit_guide(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    *,
    num_steps: int = 300,
    learning_rate: float = 1e-3,
    num_samples: int = 8,
    num_evaluated: int = 500,
) -> Refitted:
    """The ELBO of one example before and after its guide is fitted to it alone, the generative
    model held.

    All parameters are moved through the guide alone, by Adam with a rate that falls to 0 in each
    half of the steps: any guide that an encoder can put out is reached so, whatever its family, and
    needs no coordinates of its own. What is left after it is the approximation gap.

    Args:
      key: one typed PRNG key.
      model, params: with densities; a guide that is reparameterised.
      x: one example.
      num_steps: an even number.
      learning_rate: of Adam, at the start.
      num_samples: of z at each step.
      num_evaluated: of z for each of the ELBOs.

    Raises:
      ValueError: the model has no densities, a draw of its guide has no gradient, or num_steps is
        not a positive even number.
    """
    if num_steps < 2 or num_steps % 2:
        raise ValueError(f"refit_guide expects an even number of steps of 2 or more: {num_steps}.")
    densities = densities_of(model, "refit_guide")
    held = freeze(params)
    guide = densities.guide(held, x)
    require_reparameterised(guide, "refit_guide")
    joint = log_joint(model, held, x)
    key_fit, key_evaluate = jax.random.split(key)
    schedule = optax.linear_schedule(learning_rate, 0.0, num_steps // 2)
    optimiser = optax.adam(schedule)

    def value(params: Params, key: Array, num_samples: int) -> Array:
        q = densities.guide(params, x)
        return elbo(key, joint, q, num_samples=num_samples)

    def step(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], None]:
        (params, state) = carry
        slope = jax.grad(lambda params: -value(params, key, num_samples))(params)
        (moves, state) = optimiser.update(slope, state, params)
        return (optax.apply_updates(params, moves), state), None

    def fit(params: Params, keys: Array) -> Params:
        ((params, _), _) = jax.lax.scan(step, (params, optimiser.init(params)), keys)
        return params

    keys = jax.random.split(key_fit, (2, num_steps // 2))
    half = fit(params, keys[0])
    whole = fit(half, keys[1])
    stages = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, half, whole)
    values = jax.vmap(lambda stage: value(stage, key_evaluate, num_evaluated))(stages)
    return Refitted(*values)
