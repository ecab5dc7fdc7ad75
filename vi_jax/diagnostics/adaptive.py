"""log p(x) of a few latents by importance sampling from a proposal that adapts to the posterior."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from vi_jax import linalg
from vi_jax.diagnostics.annealed import whiten
from vi_jax.diagnostics.bracket import Raveled, Whitened
from vi_jax.types import Array, Guide, LogJoint

DEGREES = 5.0  # of freedom of the kernels
DEFENSIVE = 0.1  # share of the samples that stay with the first proposals (Hesterberg 1995)
HALVINGS = 30  # of the interval of a power
SEARCHING = 2.0  # the bandwidth while the weights lie on too few samples

LogDensity = Callable[[Array], Array]


class Adaptive(NamedTuple):
    """The estimate and how good its last proposal was."""

    log_p: Array  # nats
    effective: Array  # samples of the last round, of num_samples


class Kernels(NamedTuple):
    """An even mixture of Student-t kernels of one scale."""

    centres: Array  # [M, D]
    root: Array  # Cholesky factor of the scale, [D, D]

    def sample(self, key: Array, num: int) -> Array:
        """Samples [K, D], the same number of each kernel where M divides K."""
        key_noise, key_scale = jax.random.split(key)
        size = self.centres.shape[1]
        noise = jax.random.normal(key_noise, (num, size)) @ self.root.T
        scale = jax.random.chisquare(key_scale, DEGREES, (num, 1)) / DEGREES
        return self.centres[jnp.arange(num) % len(self.centres)] + noise / jnp.sqrt(scale)

    def log_prob(self, rows: Array) -> Array:
        """Of rows [K, D], nats: [K]."""
        size = self.centres.shape[1]
        loc = self.centres.mean(0)  # near the rows, so that the difference of squares is one
        rows = linalg.solve_triangular(self.root, (rows - loc).T, lower=True).T
        centres = linalg.solve_triangular(self.root, (self.centres - loc).T, lower=True).T
        squares = (rows**2).sum(1)[:, None] + (centres**2).sum(1) - 2.0 * rows @ centres.T
        log_kernel = -0.5 * (DEGREES + size) * jnp.log1p(jnp.maximum(squares, 0.0) / DEGREES)
        log_normaliser = gammaln(0.5 * (DEGREES + size)) - gammaln(0.5 * DEGREES)
        log_normaliser -= 0.5 * size * jnp.log(DEGREES * jnp.pi)
        log_normaliser -= jnp.log(jnp.diagonal(self.root)).sum()
        return jax.nn.logsumexp(log_kernel, 1) - jnp.log(len(centres)) + log_normaliser


def adaptive_evidence(
    key: Array,
    log_joint: LogJoint,
    q: Guide,
    *,
    others: Sequence[Guide] = (),
    num_samples: int = 2_000,
    num_rounds: int = 4,
    num_kernels: int = 100,
) -> Adaptive:
    """log p(x) by importance sampling, for a handful of latents and a guide that may be far off.

    1. K samples of the guide and of `others` in equal shares, weighted by the density of their
    mixture (Veach & Guibas 1995). 2. Then, round by round: M points drawn by the weights, each the
    centre of a Student-t kernel of the weighted covariance times the bandwidth of West (1993); K
    new samples, nine tenths of the kernels and one of the first mixture, weighted by the density of
    both. Weights that lie on too few samples for a covariance are raised to the largest power below
    one that spreads them out. The last round's mean weight is unbiased for p(x), whatever the
    rounds before have found, and so its logarithm is at most log p(x) on average, by half the
    weights' relative variance over K; a mode that no proposal finds is missing.

    Kernels fill few dimensions: with more than some ten latents use `annealed`. Costs K (R + 1)
    values of the joint and no gradient.

    Args:
      key: one typed PRNG key.
      log_joint: z -> log p(x, z), nats; z a pytree of reals.
      q: a guide of it.
      others: guides of the same latents that are nearer to whole: the prior, or a wide one.
      num_samples: K of each round.
      num_rounds: R after the first.
      num_kernels: M.

    Raises:
      ValueError: a latent is not real, or a count is not above the number of latents.
    """
    key_white, key_first, key_rounds = jax.random.split(key, 3)
    white, unravel = whiten(key_white, q)
    size = white.loc.size
    if min(num_samples, num_kernels) <= 2 * size or num_rounds < 1:
        raise ValueError(
            f"{size} latents expect num_samples and num_kernels above {2 * size}, and a round; got "
            f"{num_samples}, {num_kernels} and {num_rounds}."
        )
    placed = [white, *(Whitened(Raveled(one, unravel), white.loc, white.root) for one in others)]

    def density(row: Array) -> Array:  # like those of `placed`, less the log-determinant
        return log_joint(unravel(white.place(row)))

    def first_log_prob(rows: Array) -> Array:
        each = jnp.stack([jax.vmap(one.log_prob)(rows) for one in placed])
        return jax.nn.logsumexp(each, 0) - jnp.log(len(placed))

    log_det = jnp.log(white.root).sum()

    def first_sample(key: Array, num: int) -> Array:
        keys = jax.random.split(key, len(placed))
        each = [one.sample(keys[i], (num,)) for i, one in enumerate(placed)]
        return jnp.concatenate(each)[: num * len(placed)]

    share = -(-num_samples // len(placed))  # rounded up
    rows = first_sample(key_first, share)
    log_w = jax.vmap(density)(rows) - first_log_prob(rows)
    num_defensive = max(1, round(DEFENSIVE * num_samples / len(placed)))

    def round_of(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Array]:
        key_centres, key_kernels, key_defensive = jax.random.split(key, 3)
        kernels = _kernels(key_centres, *carry, num_kernels)
        defensive = first_sample(key_defensive, num_defensive)
        num = len(carry[0]) - len(defensive)
        rows = jnp.concatenate([kernels.sample(key_kernels, num), defensive])
        shares = jnp.log(jnp.array([num, len(defensive)]) / len(rows))
        parts = jnp.stack([kernels.log_prob(rows) - log_det, first_log_prob(rows)])
        log_w = jax.vmap(density)(rows) - jax.nn.logsumexp(parts + shares[:, None], 0)
        return (rows, log_w), log_w

    keys = jax.random.split(key_rounds, num_rounds)
    (_, log_w), _ = jax.lax.scan(round_of, (rows, log_w), keys)
    log_p = jax.nn.logsumexp(log_w) - jnp.log(len(log_w))
    return Adaptive(log_p, jnp.exp(_log_effective(log_w)))


def _kernels(key: Array, rows: Array, log_w: Array, num: int) -> Kernels:
    """Student-t kernels at points drawn by their weights (West 1993, section 3)."""
    size = rows.shape[1]
    (log_w, power) = _spread(log_w, 2.0 * size)
    weights = jax.nn.softmax(log_w)
    loc = weights @ rows
    centred = rows - loc
    cov = (weights[:, None] * centred).T @ centred
    effective = jnp.exp(_log_effective(log_w))
    width = (4.0 / ((size + 2.0) * effective)) ** (1.0 / (size + 4.0))
    width = jnp.where(power < 1.0, SEARCHING, width)
    floor = 1e-6 * jnp.trace(cov) / size
    root = width * linalg.cholesky(cov + floor * jnp.eye(size))
    which = jax.random.categorical(key, log_w, shape=(num,))
    return Kernels(rows[which], root)


def _spread(log_w: Array, least: float) -> tuple[Array, Array]:
    """Log-weights times the largest power of at most one whose effective number is `least`, and
    that power.
    """
    log_w = log_w - log_w.max()

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        (low, high) = ends
        middle = 0.5 * (low + high)
        enough = _log_effective(middle * log_w) >= jnp.log(least)
        return (jnp.where(enough, middle, low), jnp.where(enough, high, middle)), None

    ends = (jnp.zeros_like(log_w[0]), jnp.ones_like(log_w[0]))
    (power, _), _ = jax.lax.scan(halve, ends, length=HALVINGS)
    power = jnp.where(_log_effective(log_w) >= jnp.log(least), 1.0, power)
    return power * log_w, power


def _log_effective(log_w: Array) -> Array:
    """log of (sum w)^2 / sum w^2."""
    return 2.0 * jax.nn.logsumexp(log_w) - jax.nn.logsumexp(2.0 * log_w)
