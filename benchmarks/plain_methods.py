"""Mean-field ADVI with the step sizes of other libraries: a constant Adam, and Stan's schedule."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax

import vi_jax as vi

BLOCK = 20  # iterates that Adam's answer averages


def plain_adam(rate: float, *, num_steps: int) -> Any:
    """A Method: mean-field ADVI as most libraries have it."""
    rule = optax.adam(rate)

    def guide_of(params: Any) -> Any:
        return dist.Normal(params[0], jnp.exp(params[1])).to_event(1)

    def init(key: Any, log_density: Any, start: Any) -> Any:
        params = (jnp.zeros_like(start), jnp.full_like(start, jnp.log(0.1)))
        return params, rule.init(params), params, jnp.int32(0)

    def step(key: Any, log_density: Any, state: Any) -> Any:
        params, held, average, number = state

        def loss(params: Any) -> Any:
            return -vi.elbo(key, log_density, guide_of(params), num_samples=10)

        updates, held = rule.update(jax.grad(loss)(params), held)
        params = optax.apply_updates(params, updates)
        share = 1 / (number % BLOCK + 1)
        average = jax.tree.map(lambda a, p: a + share * (p - a), average, params)
        return (params, held, average, number + 1), vi.types.MethodInfo(
            jnp.zeros(()), 10 * (number + 1), jnp.bool_(False)
        )

    return vi.Method("adam", init, step, lambda state: guide_of(state[2]), num_steps)


def adagrad(rate: float, *, num_steps: int) -> Any:
    """Mean-field ADVI with steps as in Kucukelbir et al. (2017, eq. 10 and 11), one draw a step;
    the answer is the last iterate.
    """

    def guide_of(params: Any) -> Any:
        return dist.Normal(params[0], jnp.exp(params[1])).to_event(1)

    def init(key: Any, log_density: Any, start: Any) -> Any:
        params = (jnp.zeros_like(start), jnp.zeros_like(start))
        return params, jax.tree.map(jnp.zeros_like, params), jnp.int32(0)

    def step(key: Any, log_density: Any, state: Any) -> Any:
        params, memory, number = state
        slope = jax.grad(lambda params: vi.elbo(key, log_density, guide_of(params), num_samples=1))(
            params
        )
        memory = jax.tree.map(
            lambda s, g: jnp.where(number == 0, g**2, 0.1 * g**2 + 0.9 * s), memory, slope
        )
        shrinking = rate * (number + 1.0) ** (-0.5 + 1e-16)
        params = jax.tree.map(
            lambda p, g, s: p + shrinking * g / (1 + jnp.sqrt(s)), params, slope, memory
        )
        return (params, memory, number + 1), vi.types.MethodInfo(
            jnp.zeros(()), number + 1, number + 1 >= num_steps
        )

    return vi.Method("adagrad", init, step, lambda state: guide_of(state[0]), num_steps)
