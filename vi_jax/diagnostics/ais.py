"""Annealed importance sampling: log p(x) from below, and on simulated data from above."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array, Guide, LogJoint


class Annealed(NamedTuple):
    """log-weights of the chains [C], nats, and the acceptance rate of the transitions at each temperature [T]."""

    log_w: Array
    acceptance: Array

    @property
    def lower(self) -> Array:
        """log mean w: a lower bound of log p(x) in expectation, for chains that began at the guide."""
        return jax.nn.logsumexp(self.log_w) - jnp.log(self.log_w.shape[0])

    @property
    def upper(self) -> Array:
        """-log mean 1/w: an upper bound of log p(x) in expectation, for chains that began at exact posterior draws."""
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
    """Chains from q to the posterior through q^(1 - b) p(x, .)^b, one HMC transition at each b (Neal 2001; Wu et al. 2017).

    log w = sum_t (b_t - b_{t-1}) (log p(x, z_t) - log q(z_t)); E[w] = p(x) whatever the transitions' quality, so that `.lower` is a
    lower bound. Temperatures are spaced by a sigmoid, denser at both ends.

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), a scalar in nats, differentiable; z a vector or a pytree on unconstrained space.
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

    def chain(key: Array, z: Any) -> tuple[Array, Array]:
        def move(carry: tuple[Any, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Any, Array], Array]:
            z, log_w = carry
            key, before, beta = inputs
            log_w = log_w + (beta - before) * (log_joint(z) - q.log_prob(z))
            z, accepted = _hmc(key, _between(log_joint, q, beta), z, step_size, num_leapfrog)
            return (z, log_w), accepted

        keys = jax.random.split(key, num_temperatures)
        zero = jnp.zeros((), jnp.result_type(float))
        (_, log_w), accepted = jax.lax.scan(move, (z, zero), (keys, betas[:-1], betas[1:]))
        return log_w, accepted

    log_w, accepted = jax.vmap(chain)(jax.random.split(key_chains, num_chains), start)
    return Annealed(log_w, accepted.mean(0))


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
    """Chains from exact posterior draws back to q: bidirectional Monte Carlo (Grosse et al. 2015). E[1/w] = 1/p(x), so that
    `.upper` is an upper bound.

    Exact draws are at hand for simulated data: draw z from the prior and x given z, then z is a draw from p(z | x).

    Args:
      posterior_draws: [C, ...], one chain each; the other arguments as for `forward`.

    Raises:
      ValueError: a count is not positive, or the step size.
    """
    num_chains = jax.tree.leaves(posterior_draws)[0].shape[0]
    _check(num_chains, num_temperatures, step_size, num_leapfrog)
    betas = _temperatures(num_temperatures)[::-1]

    def chain(key: Array, z: Any) -> tuple[Array, Array]:
        def move(carry: tuple[Any, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Any, Array], Array]:
            z, log_w = carry
            key, beta, after = inputs
            z, accepted = _hmc(key, _between(log_joint, q, beta), z, step_size, num_leapfrog)
            return (z, log_w + (beta - after) * (log_joint(z) - q.log_prob(z))), accepted

        keys = jax.random.split(key, num_temperatures)
        zero = jnp.zeros((), jnp.result_type(float))
        (_, log_w), accepted = jax.lax.scan(move, (z, zero), (keys, betas[:-1], betas[1:]))
        return log_w, accepted

    log_w, accepted = jax.vmap(chain)(jax.random.split(key, num_chains), posterior_draws)
    return Annealed(log_w, accepted.mean(0))


def _check(num_chains: int, num_temperatures: int, step_size: float, num_leapfrog: int) -> None:
    if min(num_chains, num_temperatures, num_leapfrog) < 1 or not step_size > 0:
        raise ValueError(
            "annealing wants num_chains, num_temperatures and num_leapfrog of at least 1 and step_size > 0; "
            f"got {num_chains}, {num_temperatures}, {num_leapfrog} and {step_size}."
        )


def _temperatures(num: int) -> Array:
    """0 = b_0 < ... < b_T = 1, sigmoid spacing (Wu et al. 2017, appendix)."""
    raw = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, num + 1))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def _between(log_joint: LogJoint, q: Guide, beta: Array) -> LogJoint:
    return lambda z: (1.0 - beta) * q.log_prob(z) + beta * log_joint(z)


def _hmc(key: Array, log_density: LogJoint, z: Any, step_size: float, num_leapfrog: int) -> tuple[Any, Array]:
    """One Metropolis-corrected Hamiltonian transition (Neal 2011, fig. 2); whether it was accepted, 0 or 1."""
    key_momentum, key_accept = jax.random.split(key)
    leaves, structure = jax.tree.flatten(z)
    keys = jax.random.split(key_momentum, len(leaves))
    momentum = structure.unflatten([jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)])
    slope = jax.grad(log_density)

    def kick(momentum: Any, z: Any, size: float) -> Any:
        return jax.tree.map(lambda m, g: m + size * g, momentum, slope(z))

    def leap(_: int, state: tuple[Any, Any]) -> tuple[Any, Any]:
        z, momentum = state
        z = jax.tree.map(lambda z, m: z + step_size * m, z, momentum)
        return z, kick(momentum, z, step_size)

    end, end_momentum = jax.lax.fori_loop(0, num_leapfrog, leap, (z, kick(momentum, z, 0.5 * step_size)))
    end_momentum = kick(end_momentum, end, -0.5 * step_size)
    change = log_density(end) - log_density(z) + _energy(momentum) - _energy(end_momentum)
    accept = jnp.log(jax.random.uniform(key_accept)) < change  # nan counts as a refusal
    return jax.tree.map(lambda new, old: jnp.where(accept, new, old), end, z), accept.astype(jnp.result_type(float))


def _energy(momentum: Any) -> Array:
    return 0.5 * sum(jnp.sum(m**2) for m in jax.tree.leaves(momentum))
