"""Population Monte Carlo: a mixture of multivariate Student-t, adapted to a posterior of few
latents by values of its log density alone.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from vi_jax import linalg
from vi_jax.diagnostics.posterior import CHUNK, NEARLY_EQUAL, WeightedSamples, weight_samples
from vi_jax.gaussian import VectorGuide
from vi_jax.types import Array, LogDensity, select

UP_TO = 6  # latents: a covariance of each component is learnt from some hundred samples
# degrees of freedom of each component: all but Gaussian ones for the middle, and two with the tails
# of a mean whose scale is known from four numbers
DF = (30.0, 30.0, 30.0, 30.0, 30.0, 6.0, 3.0, 3.0)
MIN_ROUNDS = 5
MAX_ROUNDS = 30  # the last round is the answer
# share of effective samples above which a round is the last, with k-hat under MAX_K_HAT
GOOD_SHARE = 0.5
MAX_K_HAT = 0.5
# weight of the component that stays at the first guide with scales of WIDE times its own
DEFENSIVE_SHARE = 0.05
WIDE = 2.0
PRIOR_DRAWS = 2.0  # samples that the first covariance counts as, beside a component's own


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StudentMixture(VectorGuide):
    """sum_k w_k t(u | nu_k, m_k, R_k R_k')."""

    log_weights: Array  # [K], normalised
    loc: Array  # m [K, D]
    root: Array  # R [K, D, D], lower triangular
    df: Array  # nu [K]

    @property
    def mean(self) -> Array:
        return jnp.exp(self.log_weights) @ self.loc

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.loc.shape[-1:]

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]; which component is chosen at random has no gradient."""
        key_which, key_normal, key_chi2 = jax.random.split(key, 3)
        which = jax.random.categorical(key_which, self.log_weights, shape=sample_shape)
        shape = (*sample_shape, *self.event_shape)
        eps = jax.random.normal(key_normal, shape, self.loc.dtype)
        df = self.df[which]
        chi2 = 2 * jax.random.gamma(key_chi2, 0.5 * df, sample_shape, self.loc.dtype)
        eps = eps * jnp.sqrt(df / chi2)[..., None]
        return self.loc[which] + jnp.einsum("...ij,...j->...i", self.root[which], eps)

    def log_density(self, z: Array) -> Array:
        log_q, _ = self.components(z)
        return jax.nn.logsumexp(self.log_weights + log_q)

    def components(self, z: Array) -> tuple[Array, Array]:
        """log t(z | nu, m_k, R_k R_k') and the squared distance of z from m_k by R_k, [K] each."""
        size = z.size
        x = jax.vmap(lambda m, r: linalg.solve_triangular(r, z - m, lower=True))
        distance = jnp.sum(x(self.loc, self.root) ** 2, axis=-1)
        log_det = jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1)).sum(-1)
        log_norm = (
            gammaln(0.5 * (self.df + size))
            - gammaln(0.5 * self.df)
            - 0.5 * size * jnp.log(self.df * jnp.pi)
        )
        log_q = log_norm - log_det - 0.5 * (self.df + size) * jnp.log1p(distance / self.df)
        return log_q, distance


def adapted(
    key: Array, log_density: LogDensity, loc: Array, root: Array, *, num_draws: int
) -> tuple[StudentMixture, WeightedSamples, Array]:
    """A mixture of Student-t adapted to the posterior (Cappe et al. 2008, M-PMC, sec. 4), and
    importance-weighted samples of it.

    Each round draws from the mixture, weighs its samples by p over it (Pareto-smoothed), and takes
    one step of expectation-maximisation on them, towards the least KL(p, mixture). A component that
    does not move keeps the tails wide.

    Args:
      key: one typed PRNG key.
      log_density: u [D] -> nats; num_draws values a round, no gradient.
      loc: m [D] of the Gaussian that is known to be near.
      root: R [D, D] of it, lower triangular.
      num_draws: S.

    Returns:
      The mixture, its samples, and how many values were taken.
    """
    key_start, key_rounds = jax.random.split(key)
    size = loc.size

    # 1. components about points of the Gaussian, in coordinates where it is N(0, I)
    def inside(x: Array) -> Array:
        value = log_density(loc + root @ x)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    eye = jnp.eye(size, dtype=loc.dtype)
    num = len(DF)
    places = jax.random.normal(key_start, (num, size), loc.dtype)
    places = places.at[0].set(0.0).at[-1].set(0.0)
    roots = jnp.tile(eye, (num, 1, 1)).at[-1].multiply(WIDE)
    start = StudentMixture(
        _floored(jnp.zeros(num, loc.dtype)),
        places,
        roots,
        jnp.asarray(DF, loc.dtype),
    )

    # 2. rounds: what is in the loop is compiled once
    def one(number: Array, q: StudentMixture) -> tuple[StudentMixture, WeightedSamples]:
        x = q.sample(jax.random.fold_in(key_rounds, number), (num_draws,))
        log_p = jax.lax.map(inside, x, batch_size=min(CHUNK, num_draws))
        return q, weight_samples(x, log_p, q)

    def unfinished(held: tuple[Array, StudentMixture, WeightedSamples]) -> Array:
        number, _, weighted = held
        return (number < MIN_ROUNDS) | ((number < MAX_ROUNDS) & ~_is_good(weighted))

    def moved(held: tuple[Array, StudentMixture, WeightedSamples]) -> Any:
        number, q, weighted = held
        return number + 1, *one(number, select(number == 0, q, _maximised(q, weighted)))

    empty = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, 0, start)[1]
    )
    number, q, weighted = jax.lax.while_loop(unfinished, moved, (jnp.int32(0), start, empty))

    # 3. back
    shift = jnp.log(jnp.diagonal(root)).sum()
    q = StudentMixture(
        q.log_weights, loc + q.loc @ root.T, jnp.einsum("ij,kjl->kil", root, q.root), q.df
    )
    weighted = weighted._replace(
        u=loc + weighted.u @ root.T,
        elbo=weighted.elbo + shift,
        log_evidence=weighted.log_evidence + shift,
    )
    return q, weighted, number * num_draws


def _is_good(weighted: WeightedSamples) -> Array:
    share = weighted.effective / len(weighted.u)
    return (share > NEARLY_EQUAL) | ((weighted.k_hat < MAX_K_HAT) & (share > GOOD_SHARE))


def _maximised(q: StudentMixture, weighted: WeightedSamples) -> StudentMixture:
    """One step of expectation-maximisation on weighted samples x [S, D] of q, all but the last
    component (Cappe et al. 2008, sec. 4).
    """
    x = weighted.u
    num, size = x.shape
    log_q, distance = jax.vmap(q.components)(x)  # [N, K]
    log_mix = jax.nn.logsumexp(q.log_weights + log_q, axis=1)
    log_v = weighted.log_weights
    share = jnp.exp(log_v[:, None] + q.log_weights + log_q - log_mix[:, None])  # [N, K]
    weight = share.sum(0)
    pull = share * (q.df + size) / (q.df + distance)
    loc = (pull.T @ x) / jnp.maximum(pull.sum(0), 1e-30)[:, None]
    gap = x[:, None] - loc  # [N, K, D]
    scatter = jnp.einsum("nk,nki,nkj->kij", pull, gap, gap)
    prior = PRIOR_DRAWS / num
    covariance = (scatter + prior * jnp.eye(size, dtype=x.dtype)) / (weight + prior)[:, None, None]
    root = linalg.cholesky(covariance)
    good = jnp.all(jnp.isfinite(root), axis=(1, 2)) & jnp.all(jnp.isfinite(loc), axis=1)
    good = good.at[-1].set(False)
    log_weights = jnp.log(jnp.maximum(weight, 1e-30))
    return StudentMixture(
        _floored(jnp.where(jnp.isfinite(log_weights), log_weights, q.log_weights)),
        jnp.where(good[:, None], loc, q.loc),
        jnp.where(good[:, None, None], root, q.root),
        q.df,
    )


def _floored(log_w: Array) -> Array:
    """Normalised, the last component's weight at least DEFENSIVE_SHARE."""
    log_w = jax.nn.log_softmax(log_w)
    last = jnp.maximum(log_w[-1], jnp.log(DEFENSIVE_SHARE))
    rest = log_w[:-1] - jax.nn.logsumexp(log_w[:-1]) + jnp.log1p(-jnp.exp(last))
    return jnp.append(rest, last)
