"""Kalman filter and smoother of a Gaussian chain with information sites, in covariance form.

A chain z_1 ~ N(m, P), z_(t+1) ~ N(A_t z_t, Q_t) meets sites exp(h_t' z_t - z_t' J_t z_t / 2), as
each likelihood that is Gaussian in z_t is one, up to a constant. The posterior is a chain, and

    log Z = log E_p[prod_t exp(h_t' z_t - z_t' J_t z_t / 2)].

An update needs no inverse of a covariance, and J_t may be singular: a step of which nothing is
observed has h = 0 and J = 0, so that masks cost nothing. The precision form (block-tridiagonal) is
the same in exact arithmetic; for smooth kernels in float32 it is off by hundreds of nats.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.chains.small import applied, congruence, product, solve, symmetric
from vi_jax.types import Array


class Chain(NamedTuple):
    """A Gaussian Markov chain of D numbers a step: z_1 ~ N(mean, cov), z_(t+1) ~ N(A z_t, Q)."""

    mean: Array  # of z_1, [D]
    cov: Array  # of z_1, [D, D]
    transition: Array  # A, [D, D], or one for each step [T - 1, D, D]
    noise: Array  # Q, [D, D], or one for each step [T - 1, D, D]


class Sites(NamedTuple):
    """Factors exp(h_t' z_t - z_t' J_t z_t / 2), one for each step."""

    h: Array  # [T, D]
    J: Array  # [T, D, D], symmetric, not negative


class Smoothed(NamedTuple):
    """Moments of a chain given its sites."""

    mean: Array  # E[z_t], [T, D]
    cov: Array  # Cov[z_t], [T, D, D]
    cross: Array  # Cov[z_t, z_(t+1)], [T - 1, D, D]
    log_z: Array  # nats, []


class Gains(NamedTuple):
    """What the means of a chain are linear in the sites' h by."""

    filtered: Array  # Cov[z_t | sites up to t], [T, D, D]
    back: Array  # G_t: E[z_t | z_(t+1), sites] is linear in z_(t+1) by it, [T - 1, D, D]


def no_sites(num_steps: int, size: int) -> Sites:
    """Sites that say nothing of T steps of D numbers."""
    return Sites(jnp.zeros((num_steps, size)), jnp.zeros((num_steps, size, size)))


def per_step(chain: Chain, num_steps: int) -> tuple[Array, Array]:
    """A and Q of each step, each [T - 1, D, D]."""
    size = chain.mean.shape[-1]
    shape = (num_steps - 1, size, size)
    return jnp.broadcast_to(chain.transition, shape), jnp.broadcast_to(chain.noise, shape)


def expected_log_sites(sites: Sites, of: Smoothed) -> Array:
    """E[sum_t h_t' z_t - z_t' J_t z_t / 2] under some moments, nats."""
    second = of.cov + of.mean[..., None] * of.mean[..., None, :]
    return jnp.sum(sites.h * of.mean) - 0.5 * jnp.sum(sites.J * second)


def update(mean: Array, cov: Array, h: Array, J: Array) -> tuple[Array, Array, Array]:
    """N(mean, cov) times one site: its mean [D] and covariance [D, D], and log E[site], nats."""
    size = mean.shape[-1]
    pull = jnp.eye(size, dtype=cov.dtype) + product(cov, J)
    (after, log_det) = solve(pull, cov)
    after = symmetric(after)
    pulled = applied(J, mean)
    u = h - pulled
    step = applied(after, u)
    log_z = jnp.sum(h * mean - 0.5 * mean * pulled + 0.5 * u * step) - 0.5 * log_det
    return mean + step, after, log_z


class _Filtered(NamedTuple):
    """The forward pass, each leaf [T, ...]; what is predicted is the next step."""

    mean: Array
    cov: Array
    predicted_mean: Array
    predicted_cov: Array
    log_z: Array


def _filter(chain: Chain, sites: Sites) -> _Filtered:
    (transitions, noises) = per_step(chain, sites.h.shape[0])

    def step(predicted: tuple[Array, Array], given: tuple[Array, ...]) -> tuple[Any, _Filtered]:
        (transition, noise, h, J) = given
        (mean, cov, log_z) = update(*predicted, h, J)
        following = (applied(transition, mean), congruence(transition, cov) + noise)
        return following, _Filtered(mean, cov, *following, log_z)

    given = (_one_more(transitions), _one_more(noises), *sites)
    return jax.lax.scan(step, (chain.mean, chain.cov), given)[1]


def _one_more(matrices: Array) -> Array:
    """[T - 1, D, D] -> [T, D, D], with an identity at the end: of a step that nothing follows."""
    identity = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    return jnp.concatenate([matrices, identity[None]])


def log_normalizer(chain: Chain, sites: Sites) -> Array:
    """log Z, nats, by the filter alone: its gradient passes through no smoother."""
    return _filter(chain, sites).log_z.sum()


def smooth(chain: Chain, sites: Sites) -> tuple[Smoothed, Gains]:
    """Moments of a chain given its sites, in one scan each way (Rauch, Tung & Striebel 1965).

    Args:
      chain: the prior.
      sites: of T steps, at least 1.

    Returns:
      The moments, and the gains by which the means follow from other h with the same J.
    """
    (mean, cov, *predicted, log_z) = _filter(chain, sites)
    transitions = _one_more(per_step(chain, sites.h.shape[0])[0])

    def back(after: tuple[Array, Array], given: tuple[Array, ...]) -> tuple[Any, Any]:
        (mean, cov, next_mean, next_cov, transition) = given
        gain = solve(next_cov, product(transition, cov)).x.T
        smoothed_mean = mean + applied(gain, after[0] - next_mean)
        smoothed_cov = cov + congruence(gain, after[1] - next_cov)
        smoothed = (smoothed_mean, smoothed_cov)
        return smoothed, (*smoothed, product(gain, after[1]), gain)

    # after the last step comes what is predicted, so that it is smoothed to itself
    last = (predicted[0][-1], predicted[1][-1])
    given = (mean, cov, *predicted, transitions)
    _, (smoothed_mean, smoothed_cov, cross, gain) = jax.lax.scan(back, last, given, reverse=True)
    smoothed = Smoothed(smoothed_mean, smoothed_cov, cross[:-1], log_z.sum())
    return smoothed, Gains(cov, gain[:-1])


def means(chain: Chain, gains: Gains, sites: Sites) -> Array:
    """E[z_t], [T, D], of sites whose J is that of the gains."""
    transitions, _ = per_step(chain, sites.h.shape[0])

    def update_mean(mean: Array, cov: Array, h: Array, J: Array) -> Array:
        return mean + cov @ (h - J @ mean)

    def step(before: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
        transition, *own = given
        mean = update_mean(transition @ before, *own)
        return mean, mean

    def back(after: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
        mean, transition, gain = given
        smoothed = mean + gain @ (after - transition @ mean)
        return smoothed, smoothed

    first = update_mean(chain.mean, gains.filtered[0], sites.h[0], sites.J[0])
    given = (transitions, gains.filtered[1:], sites.h[1:], sites.J[1:])
    last, rest = jax.lax.scan(step, first, given)
    filtered = jnp.concatenate([first[None], rest])
    _, smoothed = jax.lax.scan(back, last, (filtered[:-1], transitions, gains.back), reverse=True)
    return jnp.concatenate([smoothed, last[None]])
