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
    step_spread: float = 1.0,
    resample_below: float = 0.0,
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
      step_spread: the step of each transition is drawn from step_size to so many times it, evenly
        in its logarithm: of a posterior whose scale is not known some steps are of the right size.
      resample_below: a share of the chains, 0 to 1. Where fewer than that are effective,
        (sum w)^2 / sum w^2, they are drawn anew by their weights, each of which is their mean from
        there on: a sequential Monte Carlo sampler (Del Moral, Doucet & Jasra 2006), whose mean
        weight is unbiased too. Chains that the posterior has left behind are given up for those
        that found it; their weights depend on one another, so that a standard error over chains is
        too small. 0 is never.

    Raises:
      ValueError: a count is not positive, or the step size; resample_below is not in [0, 1].
    """
    _check(num_chains, num_temperatures, step_size, num_leapfrog, step_spread)
    if not 0 <= resample_below <= 1:
        raise ValueError(f"annealing expects resample_below in [0, 1]; got {resample_below}.")
    key_start, key_chains = jax.random.split(key)
    start = q.sample(key_start, (num_chains,))
    betas = _temperatures(num_temperatures)

    def move(
        state: tuple[Any, Array], keys: Array, before: Array, beta: Array
    ) -> tuple[tuple[Any, Array], Array]:
        def increase(z: Any) -> Array:
            return (beta - before) * (log_joint(z) - q.log_prob(z))

        def one(key: Array, z: Any) -> tuple[Any, Array]:
            return _transition(
                key, _between(log_joint, q, beta), z, step_size, step_spread, num_leapfrog
            )

        (z, log_w) = state
        log_w = log_w + jax.vmap(increase)(z)
        if resample_below:
            (z, log_w) = _resample(keys[num_chains], z, log_w, resample_below)
        z, accepted = jax.vmap(one)(keys[:num_chains], z)
        return (z, log_w), accepted.mean()

    num_keys = num_chains + bool(resample_below)
    return _anneal(move, key_chains, start, num_chains, betas, num_keys=num_keys)


def _resample(key: Array, z: Any, log_w: Array, below: float) -> tuple[Any, Array]:
    """The chains, drawn anew by one uniform number where fewer than the share `below` are
    effective.
    """
    num_chains = len(log_w)
    log_total = jax.nn.logsumexp(log_w)
    log_effective = 2 * log_total - jax.nn.logsumexp(2 * log_w)
    is_due = log_effective < jnp.log(below * num_chains)
    cumulative = jnp.cumsum(jnp.exp(log_w - log_total))
    points = (jnp.arange(num_chains) + jax.random.uniform(key)) / num_chains
    drawn = jnp.clip(jnp.searchsorted(cumulative, points), 0, num_chains - 1)
    taken = jnp.where(is_due, drawn, jnp.arange(num_chains))
    log_mean = log_total - jnp.log(num_chains)
    z = jax.tree.map(lambda leaf: leaf[taken], z)
    return z, jnp.where(is_due, log_mean, log_w)


def reverse(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    posterior_draws: Any,
    *,
    num_temperatures: int,
    step_size: float = 0.1,
    num_leapfrog: int = 10,
    step_spread: float = 1.0,
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
    _check(num_chains, num_temperatures, step_size, num_leapfrog, step_spread)
    betas = _temperatures(num_temperatures)[::-1]

    def move(
        state: tuple[Any, Array], keys: Array, beta: Array, after: Array
    ) -> tuple[tuple[Any, Array], Array]:
        def one(key: Array, z: Any, log_w: Array) -> tuple[Any, Array, Array]:
            z, accepted = _transition(
                key, _between(log_joint, q, beta), z, step_size, step_spread, num_leapfrog
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
    *,
    num_keys: int | None = None,
) -> Annealed:
    """All chains from one temperature to the next, by one scan."""

    def step(
        state: tuple[Any, Array], inputs: tuple[Array, Array, Array]
    ) -> tuple[tuple[Any, Array], Array]:
        return move(state, *inputs)

    keys = jax.random.split(key, (len(betas) - 1, num_keys or num_chains))
    start = (z, jnp.zeros(num_chains, jnp.result_type(float)))
    (_, log_w), acceptance = jax.lax.scan(step, start, (keys, betas[:-1], betas[1:]))
    return Annealed(log_w, acceptance)


def _transition(
    key: Array, log_density: LogJoint, z: Any, step_size: float, spread: float, num_leapfrog: int
) -> tuple[Any, Array]:
    """One transition, of a step between step_size and spread times it."""
    step: float | Array = step_size
    if spread > 1:
        (key_step, key) = jax.random.split(key)
        step = step_size * spread ** jax.random.uniform(key_step)
    return hmc.transition(key, log_density, z, step_size=step, num_leapfrog=num_leapfrog)


def _check(
    num_chains: int, num_temperatures: int, step_size: float, num_leapfrog: int, spread: float
) -> None:
    if min(num_chains, num_temperatures, num_leapfrog) < 1 or not step_size > 0:
        raise ValueError(
            "annealing expects num_chains, num_temperatures and num_leapfrog of at least 1 and "
            "step_size > 0; "
            f"got {num_chains}, {num_temperatures}, {num_leapfrog} and {step_size}."
        )
    if not spread >= 1:
        raise ValueError(f"annealing expects a step_spread of at least 1; got {spread}.")


def _temperatures(num: int) -> Array:
    """0 = b_0 < ... < b_T = 1, sigmoid spacing (Wu et al. 2017, appendix)."""
    raw = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num + 1))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def _between(log_joint: LogJoint, q: Guide, beta: Array) -> LogJoint:
    return lambda z: (1.0 - beta) * q.log_prob(z) + beta * log_joint(z)
