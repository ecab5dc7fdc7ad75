"""The Gaussian chain with information sites as a guide: a posterior, or without sites a prior."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.chains import kalman
from vi_jax.chains.kalman import Chain, Gains, Sites, Smoothed
from vi_jax.chains.parallel import smooth_in_chunks
from vi_jax.chains.small import symmetric
from vi_jax.gaussian import log_standard_normal
from vi_jax.types import Array


class Posterior(NamedTuple):
    """What the sites make of a chain."""

    sites: Sites
    smoothed: Smoothed
    gains: Gains


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianChain:
    """q(z) = p(z) prod_t exp(h_t' z_t - z_t' J_t z_t / 2) / Z over z [T, D], p a Gaussian Markov
    chain; p itself where there are no sites.

    Samples are reparameterised; the covariances of steps and of the noise have to be of full rank.
    """

    chain: Chain
    num_steps: int = field(metadata={"static": True})  # T
    posterior: Posterior | None = None
    # of a posterior that is a fixed point, the ELBO that its last pass gained, nats, []
    gain: Array | None = None

    has_rsample = True
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(T, D)."""
        return (self.num_steps, self.chain.mean.shape[-1])

    @property
    def moments(self) -> Smoothed:
        """Means, covariances and covariances of neighbours, and log Z."""
        if self.posterior is not None:
            return self.posterior.smoothed
        return prior_moments(self.chain, self.num_steps)

    @property
    def mean(self) -> Array:
        """E[z_t], [T, D]."""
        return self.moments.mean

    @property
    def variance(self) -> Array:
        """Var[z_td], [T, D]."""
        return jnp.diagonal(self.moments.cov, axis1=-2, axis2=-1)

    @property
    def log_z(self) -> Array:
        """log E_p[prod_t site_t(z_t)], nats; 0 without sites."""
        if self.posterior is None:
            return jnp.zeros((), self.chain.mean.dtype)
        return self.posterior.smoothed.log_z

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, T, D].

        One of the posterior is one of the prior, moved by the means that it would be smoothed to
        (Doucet 2010; Durbin & Koopman 2002, sec. 2.2): as rough as the prior is, which the
        covariance of a step given the next, a difference, may not be in float32.
        """
        key_prior, key_sites = jax.random.split(key)
        shape = (*sample_shape, *self.event_shape)
        dtype = self.chain.mean.dtype
        eps = jax.random.normal(key_prior, shape, dtype)
        walk = prior_walk(self.chain, self.num_steps)
        if self.posterior is None:
            return _over_leading(walk, eps)
        (sites, _, gains) = self.posterior
        root = _root(sites.J)
        noise = jax.random.normal(key_sites, shape, dtype)

        def one(eps: Array, noise: Array) -> Array:
            z = walk(eps)
            seen = jnp.einsum("tij,tj->ti", sites.J, z) + jnp.einsum("tij,tj->ti", root, noise)
            # the posterior mean is affine in h, so this is E[z | h] + z - E[z | seen]
            difference = Chain(jnp.zeros_like(self.chain.mean), *self.chain[1:])
            return z + kalman.means(difference, gains, Sites(sites.h - seen, sites.J))

        return _over_leading(one, eps, noise)

    def log_prob(self, value: Array) -> Array:
        """log q(z), nats, [...] for z [..., T, D]."""
        value = jnp.asarray(value)
        if value.shape[-2:] != self.event_shape:
            raise ValueError(
                f"this chain is over arrays of shape {self.event_shape}; got a value of shape "
                f"{value.shape}."
            )
        log_p = prior_density(self.chain, self.num_steps)
        return _over_leading(lambda z: log_p(z) + self.log_sites(z) - self.log_z, value)

    def log_sites(self, z: Array) -> Array:
        """sum_t h_t' z_t - z_t' J_t z_t / 2 of one z, nats."""
        if self.posterior is None:
            return jnp.zeros((), z.dtype)
        sites = self.posterior.sites
        pulled = jnp.einsum("tij,tj->ti", sites.J, z)
        return jnp.sum((sites.h - 0.5 * pulled) * z)

    def expected_log_sites(self, of: Smoothed) -> Array:
        """E[log sites(z)] under other moments, nats."""
        if self.posterior is None:
            return jnp.zeros((), of.mean.dtype)
        return kalman.expected_log_sites(self.posterior.sites, of)

    def kl_to(self, p: "GaussianChain") -> Array:
        """KL(q || p) from another chain of the same shape, nats; `vi_jax.kl_divergence` takes it.

        Of a posterior from its own prior it is E_q[log sites] - log Z, no inverse of a covariance
        in it.
        """
        of = self.moments
        sites = self.expected_log_sites(of) - p.expected_log_sites(of)
        normalizers = p.log_z - self.log_z
        if all(a is b for a, b in zip(self.chain, p.chain, strict=True)):
            return sites + normalizers
        log_q = expected_log_prior(self.chain, of)
        return sites + normalizers + log_q - expected_log_prior(p.chain, of)


def gaussian_chain(
    chain: Chain, sites: Sites | None = None, *, num_steps: int | None = None, chunk: int = 0
) -> GaussianChain:
    """A chain given sites, or by itself over `num_steps` steps.

    Args:
      chain: the prior.
      sites: of T steps.
      num_steps: T, where there are no sites.
      chunk: steps of an associative scan, see `smooth_in_chunks`; 0 for a serial one.

    Raises:
      ValueError: neither sites nor num_steps, or both.
    """
    if (sites is None) == (num_steps is None):
        raise ValueError("gaussian_chain expects either sites or num_steps.")
    if sites is None:
        assert num_steps is not None
        return GaussianChain(chain, num_steps)
    if chunk:
        smoothed, gains = smooth_in_chunks(chain, sites, chunk=chunk)
    else:
        smoothed, gains = kalman.smooth(chain, sites)
    return GaussianChain(chain, sites.h.shape[0], Posterior(sites, smoothed, gains))


def prior_moments(chain: Chain, num_steps: int) -> Smoothed:
    """Moments of a chain without sites."""
    transitions, noises = kalman.per_step(chain, num_steps)

    def step(
        before: tuple[Array, Array], given: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        transition, noise = given
        cross = before[1] @ transition.T
        mean = transition @ before[0]
        cov = symmetric(transition @ cross + noise)
        return (mean, cov), (mean, cov, cross)

    start = (chain.mean, symmetric(chain.cov))
    _, (mean, cov, cross) = jax.lax.scan(step, start, (transitions, noises))
    return Smoothed(
        jnp.concatenate([start[0][None], mean]),
        jnp.concatenate([start[1][None], cov]),
        cross,
        jnp.zeros((), mean.dtype),
    )


def prior_walk(chain: Chain, num_steps: int) -> Callable[[Array], Array]:
    """Standard normals [T, D] -> z [T, D]."""
    start = linalg.cholesky(chain.cov)
    factors = _factors(chain, num_steps)
    transitions, _ = kalman.per_step(chain, num_steps)

    def walk(eps: Array) -> Array:
        first = chain.mean + start @ eps[0]

        def step(before: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
            transition, factor, noise = given
            z = transition @ before + factor @ noise
            return z, z

        _, rest = jax.lax.scan(step, first, (transitions, factors, eps[1:]))
        return jnp.concatenate([first[None], rest])

    return walk


def prior_density(chain: Chain, num_steps: int) -> Callable[[Array], Array]:
    """log p(z) of one z [T, D], nats."""
    start = linalg.cholesky(chain.cov)
    factors = _factors(chain, num_steps)
    transitions, _ = kalman.per_step(chain, num_steps)
    log_det = _log_diagonal(start) + _log_diagonal(factors).sum()

    def log_p(z: Array) -> Array:
        first = linalg.solve_triangular(start, z[0] - chain.mean, lower=True)
        moved = z[1:] - jnp.einsum("tij,tj->ti", transitions, z[:-1])
        rest = linalg.solve_triangular(factors, moved[..., None], lower=True)
        return log_standard_normal(first) + log_standard_normal(rest) - log_det

    return log_p


def expected_log_prior(chain: Chain, of: Smoothed) -> Array:
    """E[log p(z)] of a chain under the moments of another, nats."""
    transitions, noises = kalman.per_step(chain, of.mean.shape[0])
    # 1. the first step
    off = of.mean[0] - chain.mean
    first = _expected_normal(of.cov[0] + jnp.outer(off, off), chain.cov)
    # 2. second moments of z_(t+1) - A z_t
    moved = of.mean[1:] - jnp.einsum("tij,tj->ti", transitions, of.mean[:-1])
    across = jnp.einsum("tij,tjk->tik", transitions, of.cross)
    within = jnp.einsum("tij,tjk,tlk->til", transitions, of.cov[:-1], transitions)
    spread = of.cov[1:] + within - across - jnp.swapaxes(across, -1, -2)
    second = spread + moved[..., None] * moved[..., None, :]
    return first + jax.vmap(_expected_normal)(second, noises).sum()


def _expected_normal(second: Array, cov: Array) -> Array:
    """E[log N(r | 0, cov)] where E[r r'] is `second`, nats."""
    factor = linalg.cholesky(cov)
    trace = jnp.trace(linalg.cho_solve((factor, True), second))
    return -0.5 * trace + log_standard_normal(jnp.zeros(cov.shape[-1])) - _log_diagonal(factor)


def _factors(chain: Chain, num_steps: int) -> Array:
    """Cholesky factors of the noise of each step, [T - 1, D, D]."""
    factor = linalg.cholesky(chain.noise)  # one where it is the same at each step
    return jnp.broadcast_to(factor, (num_steps - 1, *factor.shape[-2:]))


def _root(J: Array) -> Array:
    """R with R R' = J for symmetric J [..., D, D] that may be singular."""
    values, vectors = linalg.eigh(J)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]


def _log_diagonal(factor: Array) -> Array:
    """log det of triangular factors, [...]."""
    return jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def _over_leading(function: Callable[..., Array], *arrays: Array) -> Array:
    """A function of arrays [T, D], over all axes before these."""
    for _ in range(arrays[0].ndim - 2):
        function = jax.vmap(function)
    return function(*arrays)
