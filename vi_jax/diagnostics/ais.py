"""Annealed importance sampling (AIS): bounds of log p(x) from below, and on simulated data
above."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import hmc
from vi_jax.types import Array, Guide, LogJoint


class Annealed(NamedTuple):
    """log-weights of the chains [C], nats, and the acceptance rate of the transitions at each
    temperature [T].
    """

    log_w: Array
    acceptance: Array

    @property
    def lower(self) -> Array:
        """log mean w: a lower bound of log p(x) in expectation, for chains that began at the
        guide.
        """
        return jax.nn.logsumexp(self.log_w) - jnp.log(self.log_w.shape[0])

    @property
    def upper(self) -> Array:
        """-log mean 1/w: an upper bound of log p(x) in expectation, for chains that began at exact
        posterior samples.
        """
        return jnp.log(self.log_w.shape[0]) - jax.nn.logsumexp(-self.log_w)


def forward(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    *,
    num_chains: int,
    num_temperatures: int,
    step_size: float = 0.1,
    num_leapfrog: int = 10,
) -> Annealed:
    """Chains from q to the posterior through q^(1 - b) p(x, .)^b, one HMC transition at each b
    (Neal 2001; Wu et al. 2017).

    log w = sum_t (b_t - b_{t-1}) (log p(x, z_t) - log q(z_t)); E[w] = p(x) whatever the
    transitions' quality, so that `.lower` is a lower bound. Temperatures are spaced by a sigmoid,
    denser at both ends.

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), a scalar in nats, differentiable; z a vector or a pytree on
        unconstrained space.
      q: where chains begin: the prior, or a guide that was fitted.
      num_chains: C, run together.
      num_temperatures: T transitions a chain.
      step_size: of the leapfrog; aim at an acceptance near 0.65.
      num_leapfrog: steps a transition.

    Raises:
      ValueError: a count is not positive, or the step size.
    """
    _check(num_chains, num_temperatures, step_size, num_leapfrog)
    key_start, key_chains = jax.random.split(key)
    start = q.sample(key_start, (num_chains,))
    betas = _temperatures(num_temperatures)

    def move(
        state: tuple[Any, Array], keys: Array, before: Array, beta: Array
    ) -> tuple[tuple[Any, Array], Array]:
        def one(key: Array, z: Any, log_w: Array) -> tuple[Any, Array, Array]:
            log_w = log_w + (beta - before) * (log_joint(z) - q.log_prob(z))
            z, accepted = hmc.transition(
                key,
                _between(log_joint, q, beta),
                z,
                step_size=step_size,
                num_leapfrog=num_leapfrog,
            )
            return z, log_w, accepted

        z, log_w, accepted = jax.vmap(one)(keys, *state)
        return (z, log_w), accepted.mean()

    return _anneal(move, key_chains, start, num_chains, betas)


def reverse(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    posterior_draws: Any,
    *,
    num_temperatures: int,
    step_size: float = 0.1,
    num_leapfrog: int = 10,
) -> Annealed:
    """Chains from exact posterior samples back to q: bidirectional Monte Carlo (Grosse et al.
    2015). E[1/w] = 1/p(x), so that `.upper` is an upper bound.

    Exact samples are available for simulated data: draw z from the prior and x given z, then z is a
    draw from p(z | x).

    Args:
      posterior_draws: [C, ...], one chain each; the other arguments as for `forward`.

    Raises:
      ValueError: a count is not positive, or the step size.
    """
    num_chains = jax.tree.leaves(posterior_draws)[0].shape[0]
    _check(num_chains, num_temperatures, step_size, num_leapfrog)
    betas = _temperatures(num_temperatures)[::-1]

    def move(
        state: tuple[Any, Array], keys: Array, beta: Array, after: Array
    ) -> tuple[tuple[Any, Array], Array]:
        def one(key: Array, z: Any, log_w: Array) -> tuple[Any, Array, Array]:
            z, accepted = hmc.transition(
                key,
                _between(log_joint, q, beta),
                z,
                step_size=step_size,
                num_leapfrog=num_leapfrog,
            )
            return z, log_w + (beta - after) * (log_joint(z) - q.log_prob(z)), accepted

        z, log_w, accepted = jax.vmap(one)(keys, *state)
        return (z, log_w), accepted.mean()

    return _anneal(move, key, posterior_draws, num_chains, betas)


def _anneal(
    move: Callable[..., tuple[tuple[Any, Array], Array]],
    key: Array,
    z: Any,
    num_chains: int,
    betas: Array,
) -> Annealed:
    """All chains from one temperature to the next, by one scan."""

    def step(
        state: tuple[Any, Array], inputs: tuple[Array, Array, Array]
    ) -> tuple[tuple[Any, Array], Array]:
        return move(state, *inputs)

    keys = jax.random.split(key, (len(betas) - 1, num_chains))
    start = (z, jnp.zeros(num_chains, jnp.result_type(float)))
    (_, log_w), acceptance = jax.lax.scan(step, start, (keys, betas[:-1], betas[1:]))
    return Annealed(log_w, acceptance)


def _check(num_chains: int, num_temperatures: int, step_size: float, num_leapfrog: int) -> None:
    if min(num_chains, num_temperatures, num_leapfrog) < 1 or not step_size > 0:
        raise ValueError(
            "annealing expects num_chains, num_temperatures and num_leapfrog of at least 1 and "
            "step_size > 0; "
            f"got {num_chains}, {num_temperatures}, {num_leapfrog} and {step_size}."
        )


def _temperatures(num: int) -> Array:
    """0 = b_0 < ... < b_T = 1, sigmoid spacing (Wu et al. 2017, appendix)."""
    raw = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num + 1))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def _between(log_joint: LogJoint, q: Guide, beta: Array) -> LogJoint:
    return lambda z: (1.0 - beta) * q.log_prob(z) + beta * log_joint(z)
