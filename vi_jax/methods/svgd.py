"""Stein variational gradient descent: particles that repel each other."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax import linalg
from vi_jax.gaussian import HALF_LOG_TWO_PI, over_leading
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select


class State(NamedTuple):
    """Particles."""

    particles: Array  # [P, D]
    optimizer: Any
    num_steps: Array  # int32
    evaluations: Array  # int32


def svgd(
    *,
    num_particles: int = 100,
    spread: float = 1.0,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int = 1_000,
) -> Method:
    """P particles moved by phi(u) = (1/P) sum_j k(u_j, u) grad log p(u_j) + grad_{u_j} k(u_j, u),
    the direction in the unit ball of a kernel's Hilbert space in which KL(q || p) falls fastest
    (Liu & Wang 2016, alg. 1 and eq. 8), k(u, v) = exp(-|u - v|^2 / h) and h = med^2 / log P, med
    the median of the distances between particles (their sec. 5).

    The guide is a kernel density estimate from the particles (`Particles`): a density is what k-hat
    and the ELBO of `vi.fit` need, and they judge it, not the particles, which are
    `guide.particles`. Variances come out too small where D is not small beside P (Ba et al. 2022).

    Args:
      num_particles: P, gradient evaluations a step; P^2 D memory.
      spread: standard deviation of the particles around the start.
      optimizer: of optax; Adam at 0.1, falling to 0 along a cosine, if not given.
      num_steps: in all.

    Returns:
      A Method, also for minibatches. Its `value` is minus the norm of phi, root mean square over
      particles: not an ELBO.
    """
    rule = optimizer or optax.adam(optax.cosine_decay_schedule(0.1, num_steps))

    def init(key: Array, log_density: LogDensity, start: Array) -> State:
        del log_density
        particles = start + spread * jax.random.normal(
            key, (num_particles, start.size), start.dtype
        )
        return State(particles, rule.init(particles), jnp.int32(0), jnp.int32(0))

    def step(key: Array, log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
        del key
        direction = stein_direction(
            state.particles, jax.vmap(jax.grad(log_density))(state.particles)
        )
        good = jnp.all(jnp.isfinite(direction))
        updates, optimizer = rule.update(
            -jnp.where(good, direction, 0.0), state.optimizer, state.particles
        )
        number = state.num_steps + 1
        new = State(state.particles + updates, optimizer, number, state.evaluations + num_particles)
        kept = select(good, new, state)
        kept = kept._replace(num_steps=number, evaluations=new.evaluations)
        value = -jnp.sqrt(jnp.mean(jnp.sum(direction**2, 1)))
        return kept, MethodInfo(value, kept.evaluations, number >= num_steps)

    return Method("svgd", init, step, lambda state: Particles(state.particles), num_steps, True)


def stein_direction(particles: Array, scores: Array) -> Array:
    """phi at each of the particles [P, D], of the scores grad log p there (Liu & Wang 2016, eq.
    8).
    """
    square = squared_distances(particles)
    h = bandwidth(square)
    k = jnp.exp(-square / h)
    # sum_j grad_{u_j} k(u_j, u_i) = (2 / h) sum_j (u_i - u_j) k(u_j, u_i)
    repulsion = (2.0 / h) * (k.sum(1)[:, None] * particles - k @ particles)
    return (k @ scores + repulsion) / len(particles)


def squared_distances(particles: Array) -> Array:
    """[P, P]; centred first, as differences of large numbers lose digits."""
    centred = particles - particles.mean(0)
    norms = jnp.sum(centred**2, 1)
    return jnp.maximum(norms[:, None] + norms - 2.0 * centred @ centred.T, 0.0)


def bandwidth(square: Array) -> Array:
    """h = med^2 / log P, of squared distances [P, P]."""
    num = square.shape[0]
    above = square[jnp.triu_indices(num, 1)]
    return jnp.maximum(jnp.median(above) / jnp.log(num), jnp.finfo(square.dtype).tiny)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Particles:
    """A kernel density estimate that keeps the particles' mean and covariance S: each is shrunk to
    the mean by a = sqrt(1 - b^2) and blurred by b^2 S (West 1993), b = (4 / (P (D + 2)))^(1 / (D +
    4)) (Silverman 1986, eq. 4.14). The particles are as they were.
    """

    particles: Array  # [P, D], P well above D

    has_rsample = True
    batch_shape = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.particles.shape[-1:]

    @property
    def mean(self) -> Array:
        return self.particles.mean(0)

    def kernels(self) -> tuple[Array, Array]:
        """Where they are, [P, D], and the triangular root of their covariance, [D, D]."""
        num, size = self.particles.shape
        b = (4.0 / (num * (size + 2.0))) ** (1.0 / (size + 4.0))
        around = self.particles - self.mean
        covariance = around.T @ around / num
        root = linalg.cholesky(covariance + 1e-6 * jnp.diag(jnp.diagonal(covariance)))
        return self.mean + (1.0 - b**2) ** 0.5 * around, b * root

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]: one of the particles, shrunk and blurred."""
        key_which, key_blur = jax.random.split(key)
        loc, root = self.kernels()
        which = jax.random.randint(key_which, sample_shape, 0, len(loc))
        return (
            loc[which]
            + jax.random.normal(key_blur, (*sample_shape, loc.shape[1]), loc.dtype) @ root.T
        )

    def log_prob(self, value: Array) -> Array:
        """log q(u), nats, [...] for u [..., D]."""
        loc, root = self.kernels()
        log_det = jnp.log(jnp.diagonal(root)).sum()

        def one(u: Array) -> Array:
            x = linalg.solve_triangular(root, (u - loc).T, lower=True)  # [D, P]
            log_kernels = -0.5 * jnp.sum(x**2, 0) - log_det - u.size * HALF_LOG_TWO_PI
            return jax.nn.logsumexp(log_kernels) - jnp.log(float(len(loc)))

        return over_leading(one, jnp.asarray(value))
