"""Kalman filter and smoother of a Gaussian chain with information sites, in covariance form.

A chain z_1 ~ N(m, P), z_(t+1) ~ N(A_t z_t, Q_t) meets sites exp(h_t' z_t - z_t' J_t z_t / 2), as
each likelihood that is Gaussian in z_t is one, up to a constant. The posterior is a chain, and

    log Z = log E_p[prod_t exp(h_t' z_t - z_t' J_t z_t / 2)].

An update needs no inverse of a covariance, and J_t may be singular: a step of which nothing is
observed has h = 0 and J = 0, so that masks cost nothing. The precision form (block-tridiagonal) is
the same in exact arithmetic; for smooth kernels in float32 it is off by hundreds of nats.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
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


def symmetric(matrix: Array) -> Array:
    """The symmetric part of matrices [..., D, D]."""
    return 0.5 * (matrix + jnp.swapaxes(matrix, -1, -2))


def expected_log_sites(sites: Sites, of: Smoothed) -> Array:
    """E[sum_t h_t' z_t - z_t' J_t z_t / 2] under some moments, nats."""
    second = of.cov + of.mean[..., None] * of.mean[..., None, :]
    return jnp.sum(sites.h * of.mean) - 0.5 * jnp.sum(sites.J * second)


def update(mean: Array, cov: Array, h: Array, J: Array) -> tuple[Array, Array, Array]:
    """N(mean, cov) times one site: its mean [D] and covariance [D, D], and log E[site], nats."""
    size = mean.shape[-1]
    pull = jnp.eye(size, dtype=cov.dtype) + cov @ J
    after = symmetric(linalg.solve(pull, cov))
    u = h - J @ mean
    step = after @ u
    log_det = linalg.slogdet(pull)[1]
    log_z = h @ mean - 0.5 * mean @ (J @ mean) + 0.5 * u @ step - 0.5 * log_det
    return mean + step, after, log_z


class _Filtered(NamedTuple):
    """The forward pass, each leaf [T, ...]; predictions are those of the step itself."""

    mean: Array
    cov: Array
    predicted_mean: Array
    predicted_cov: Array
    log_z: Array


def _filter(chain: Chain, sites: Sites) -> _Filtered:
    transitions, noises = per_step(chain, sites.h.shape[0])
    first = update(chain.mean, chain.cov, sites.h[0], sites.J[0])

    def step(
        before: tuple[Array, Array], given: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], _Filtered]:
        transition, noise, h, J = given
        mean = transition @ before[0]
        cov = symmetric(transition @ before[1] @ transition.T + noise)
        after = update(mean, cov, h, J)
        return after[:2], _Filtered(after[0], after[1], mean, cov, after[2])

    given = (transitions, noises, sites.h[1:], sites.J[1:])
    _, rest = jax.lax.scan(step, first[:2], given)
    start = _Filtered(first[0], first[1], chain.mean, chain.cov, first[2])
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, rest)


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
    found = _filter(chain, sites)
    transitions, _ = per_step(chain, sites.h.shape[0])

    def back(
        after: tuple[Array, Array], given: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        mean, cov, next_mean, next_cov, transition = given
        gain = linalg.solve(next_cov, transition @ cov).T
        smoothed_mean = mean + gain @ (after[0] - next_mean)
        smoothed_cov = symmetric(cov + gain @ (after[1] - next_cov) @ gain.T)
        out = (smoothed_mean, smoothed_cov, gain @ after[1], gain)
        return (smoothed_mean, smoothed_cov), out

    last = (found.mean[-1], found.cov[-1])
    predicted = (found.predicted_mean[1:], found.predicted_cov[1:])
    given = (found.mean[:-1], found.cov[:-1], *predicted, transitions)
    _, (mean, cov, cross, gain) = jax.lax.scan(back, last, given, reverse=True)
    smoothed = Smoothed(
        jnp.concatenate([mean, last[0][None]]),
        jnp.concatenate([cov, last[1][None]]),
        cross,
        found.log_z.sum(),
    )
    return smoothed, Gains(found.cov, gain)


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
