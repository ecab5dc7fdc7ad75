"""Hamiltonian Monte Carlo: one transition that leaves a density as it is."""

from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.types import Array, LogJoint, select

SHORTEST = 0.5  # step of a transition of a chain, in units of the longest


def transition(
    key: Array, log_density: LogJoint, z: Any, *, step_size: float | Array, num_leapfrog: int
) -> tuple[Any, Array]:
    """One Metropolis-corrected Hamiltonian transition (Neal 2011, fig. 2), of unit masses.

    Args:
      key: one typed PRNG key.
      log_density: z -> nats up to a constant, a scalar, differentiable.
      z: a state, a pytree of reals.
      step_size: of the leapfrog.
      num_leapfrog: steps of it.

    Returns:
      The next state, and whether the proposal was accepted, 0 or 1; a proposal whose density is not
      a number is refused.
    """
    key_momentum, key_accept = jax.random.split(key)
    leaves, structure = jax.tree.flatten(z)
    keys = jax.random.split(key_momentum, len(leaves))
    drawn = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    momentum = jax.tree.unflatten(structure, drawn)
    slope = jax.grad(log_density)

    def kick(momentum: Any, z: Any, size: float | Array) -> Any:
        return jax.tree.map(lambda m, g: m + size * g, momentum, slope(z))

    def leap(_: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        z, momentum = state
        z = jax.tree.map(lambda z, m: z + step_size * m, z, momentum)
        return z, kick(momentum, z, step_size)

    end, end_momentum = jax.lax.fori_loop(
        0, num_leapfrog, leap, (z, kick(momentum, z, 0.5 * step_size))
    )
    end_momentum = kick(end_momentum, end, -0.5 * step_size)
    change = log_density(end) - log_density(z) + _energy(momentum) - _energy(end_momentum)
    accept = jnp.log(jax.random.uniform(key_accept)) < change
    return select(accept, end, z), accept.astype(jnp.result_type(float))


def chain(
    key: Array,
    log_density: LogJoint,
    z: Any,
    *,
    num_transitions: int,
    step_size: float,
    num_leapfrog: int,
) -> tuple[Any, Array]:
    """The state after so many transitions, and the share of proposals that were accepted.

    The step of each transition is uniform between half of step_size and all of it: with steps of
    one size a path may be a period of the density, and come back to where it began (Neal 2011,
    sec. 3.2).
    """

    def move(z: Any, key: Array) -> tuple[Any, Array]:
        key_step, key_move = jax.random.split(key)
        step = step_size * jax.random.uniform(key_step, minval=SHORTEST, maxval=1.0)
        return transition(key_move, log_density, z, step_size=step, num_leapfrog=num_leapfrog)

    if num_transitions == 1:
        return move(z, key)
    end, accepted = jax.lax.scan(move, z, jax.random.split(key, num_transitions))
    return end, accepted.mean()


def _energy(momentum: Any) -> Array:
    return 0.5 * sum((jnp.sum(m**2) for m in jax.tree.leaves(momentum)), start=jnp.zeros(()))
