"""Batch, match and patch: score matching with a covariance of low rank plus diagonal."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.families.low_rank import LowRankNormal
from vi_jax.kl import kl_divergence
from vi_jax.methods.pathfinder import FactoredNormal
from vi_jax.optimise import lbfgs
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select

_SEARCH_TOLERANCE = 1e-3  # nats that a step of the search may gain where matching takes over
_SCORE_TOLERANCE = 0.02  # squared length of the mean score in units of the covariance, per latent
_KL_TOLERANCE = 0.01  # nats a latent, symmetrised KL of the last move


class State(NamedTuple):
    """The L-BFGS search for a start, then N(mean, factor factor' + diag(variances))."""

    search: lbfgs.State
    searching: Array  # bool
    mean: Array  # [D]
    factor: Array  # [D, R]
    variances: Array  # [D]
    # [D], running mean of the scores, later ones weighing more: 0 where the ELBO is highest
    score: Array
    step: Array  # int32, since the search
    drift: Array  # nats, symmetrised KL of the last move
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `bam_low_rank`."""

    start: FactoredNormal | None
    rank: int
    batch_size: int
    num_matches: int
    learning: float | None
    early: float
    num_em: int
    memory: int
    num_steps: int


def bam_low_rank(
    *,
    start: FactoredNormal | None = None,
    rank: int = 8,
    batch_size: int = 16,
    num_matches: int = 300,
    learning: float | None = None,
    early: float = 50.0,
    num_em: int = 10,
    memory: int = 8,
    num_steps: int = 1000,
) -> Method:
    """N(mu, W W' + diag(v)) by batch and match with a patch (Modi, Cai & Saul 2024): O(D (R + B)^2)
    a step, no D x D.

    The step of `bam` from a covariance of low rank plus diagonal, with B samples, is again low rank
    plus diagonal, of higher rank:
        Sigma' = V - V Q (I/2 + (Q'V Q + I/4)^(1/2))^-2 Q'V,  V = diag(v) + F F',  U = Q Q';
    the patch projects it back, by EM steps of factor analysis on KL(Sigma', W W' + diag(v)), which
    need Sigma' times R vectors.

    Differs from the paper in the schedule: there the weight falls as B D / t, here it is
    learning / t, early at the most.

    Args:
      start: of `pathfinder`, the Gaussian to start from; if not given, an L-BFGS search of its own
        finds where, and a diagonal.
      rank: R.
      batch_size: B, gradient evaluations a step.
      num_matches: steps; it has converged if the last of them moves by little.
      learning, early: of the weights; learning is max(10, D / 4) if not given.
      num_em: EM steps of a patch.
      memory: pairs of the L-BFGS search that gives the start.
      num_steps: at most, with those of the search.

    Returns:
      A Method for thousands of latents. Its `value` is log p during the search, then an estimate of
      the ELBO from the same samples. A step that is not finite is skipped, with value nan.
    """
    rules = Rules(start, rank, batch_size, num_matches, learning, early, num_em, memory, num_steps)
    return Method(
        "bam_low_rank", partial(_init, rules=rules), partial(_step, rules=rules), _guide, num_steps
    )


def _init(key: Array, log_density: LogDensity, u: Array, rules: Rules) -> State:
    del log_density
    search = lbfgs.start(u, memory=rules.memory)
    factor = jax.random.normal(key, (u.size, min(rules.rank, u.size)), u.dtype)
    infinite = jnp.full((), jnp.inf, u.dtype)
    zero = jnp.int32(0)
    state = State(
        search,
        jnp.bool_(True),
        u,
        factor,
        jnp.ones_like(u),
        jnp.zeros_like(u),
        zero,
        infinite,
        zero,
    )
    if rules.start is None:
        return state
    sigma = Covariance(rules.start.scale, rules.start.basis, rules.start.factor)
    small = 0.3 * jnp.sqrt(sigma.diag() / factor.shape[1])[:, None] * factor
    factor, variances = patched(sigma, small, rules.num_em)
    return state._replace(
        searching=jnp.bool_(False), mean=rules.start.loc, factor=factor, variances=variances
    )


def _ascend(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    del key
    search, hessian = lbfgs.advance(log_density, state.search)
    searching = (
        (search.gain > _SEARCH_TOLERANCE)
        & ~search.stuck
        & (search.evaluations < rules.num_steps - rules.num_matches)
    )
    # at the top: L-BFGS's diagonal; EM leaves a factor of 0 at 0, so that it starts as a tenth
    # of the variance, at random
    small = 0.3 * jnp.sqrt(hessian.diagonal / state.factor.shape[1])[:, None] * state.factor
    new = state._replace(
        search=search,
        searching=searching,
        mean=search.u,
        variances=hessian.diagonal,
        factor=jnp.where(searching, state.factor, small),
        evaluations=state.evaluations + 1,
    )
    return new, MethodInfo(search.value, new.evaluations, jnp.bool_(False))


def _match(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    q = LowRankNormal(state.mean, state.factor, state.variances, validate_args=False)
    z = q.sample(key, (rules.batch_size,))
    log_p, scores = jax.vmap(jax.value_and_grad(log_density))(z)
    rate = max(10.0, z.shape[1] / 4) if rules.learning is None else rules.learning
    weight = jnp.minimum(rules.early, rate / (state.step + 1)).astype(z.dtype)
    mean, parts = matched(z, scores, state.mean, state.factor, state.variances, weight)
    factor, variances = patched(parts, state.factor, rules.num_em)
    new_q = LowRankNormal(mean, factor, variances, validate_args=False)
    drift = kl_divergence(q, new_q) + kl_divergence(new_q, q)
    good = jnp.isfinite(drift)
    moved = state._replace(mean=mean, factor=factor, variances=variances, drift=drift)
    new = select(good, moved, state)
    score = state.score + jnp.where(good, 2 / (state.step + 2), 0.0) * (
        jnp.where(good, scores.mean(0), 0.0) - state.score
    )
    left = score @ (new.variances * score) + jnp.sum((new.factor.T @ score) ** 2)
    new = new._replace(
        score=score.astype(mean.dtype),
        step=state.step + 1,
        evaluations=state.evaluations + rules.batch_size,
    )
    value = jnp.where(good, jnp.mean(log_p - q.log_prob(z)), jnp.nan)
    done = (
        (new.step >= rules.num_matches)
        & (new.drift < _KL_TOLERANCE * mean.size)
        & (left < _SCORE_TOLERANCE * mean.size)
    )
    return new, MethodInfo(value.astype(mean.dtype), new.evaluations, done)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    return jax.lax.cond(
        state.searching,
        lambda key, s: _ascend(key, log_density, s, rules),
        lambda key, s: _match(key, log_density, s, rules),
        key,
        state,
    )


def _guide(state: State) -> Any:
    return LowRankNormal(state.mean, state.factor, state.variances)


class Covariance(NamedTuple):
    """S (I - K K' + K H H' K') S, S diagonal, K [D, M] with orthonormal columns: a sum of squares,
    positive in any precision.
    """

    scale: Array  # diagonal of S [D]
    basis: Array  # K [D, M]
    root: Array  # H [M, M]

    def times(self, x: Array) -> Array:
        """Times x [D, N]."""
        y = self.scale[:, None] * x
        inside = self.basis.T @ y
        return self.scale[:, None] * (
            y + self.basis @ (self.root @ (self.root.T @ inside) - inside)
        )

    def form(self, x: Array) -> Array:
        """x' Sigma x [N, N], of x [D, N]."""
        y = self.scale[:, None] * x
        inside = self.basis.T @ y
        out = y - self.basis @ inside
        within = self.root.T @ inside
        return out.T @ out + within.T @ within

    def diag(self) -> Array:
        """[D]."""
        out = jnp.maximum(1 - jnp.sum(self.basis**2, 1), 0.0)
        return self.scale**2 * (out + jnp.sum((self.basis @ self.root) ** 2, 1))


def matched(
    z: Array, scores: Array, mean: Array, factor: Array, variances: Array, weight: Array
) -> tuple[Array, Covariance]:
    """mu' and Sigma' of the unconstrained match, samples and scores [B, D] (Modi et al. 2024).

    The paper subtracts from V a part of nearly its size, which in float32 leaves nothing of Sigma'
    at hundreds of latents. Here the equation is solved within the span K of all columns, in units
    of the diagonal: V = L L', U = Q Q', and Sigma' = H H' with H = L (I + T (c - I) T'), c = (1/2 +
    (1/4 + s^2)^(1/2))^(-1/2), s and T the singular values and right vectors of Q'L.
    """
    size = len(z)
    share = weight / (1 + weight)
    scale = jnp.sqrt(variances)
    z_mean = z.mean(0)
    g_mean = scores.mean(0)
    # [D, B]
    x = (z - z_mean).T / size**0.5
    g = (scores - g_mean).T / size**0.5
    q = (
        jnp.concatenate([jnp.sqrt(weight) * g, jnp.sqrt(share) * g_mean[:, None]], 1)
        * scale[:, None]
    )
    plus = (
        jnp.concatenate(
            [factor, jnp.sqrt(weight) * x, jnp.sqrt(share) * (mean - z_mean)[:, None]], 1
        )
        / scale[:, None]
    )
    basis, inside = linalg.qr(jnp.concatenate([plus, q], 1))  # K [D, M]; the columns in it
    plus, q = jnp.split(inside, [plus.shape[1]], axis=1)
    # L L' = I + plus plus'
    lower = linalg.qr(jnp.concatenate([jnp.eye(len(plus), dtype=plus.dtype), plus.T]), mode="r").T
    _, s, right = linalg.svd(q.T @ lower, full_matrices=False)
    shrunk = 1 / jnp.sqrt(0.5 + jnp.sqrt(s**2 + 0.25))
    sigma = Covariance(scale, basis, lower + (lower @ right.T) * (shrunk - 1) @ right)
    return mean / (1 + weight) + share * (sigma.times(g_mean[:, None])[:, 0] + z_mean), sigma


def patched(sigma: Covariance, factor: Array, num_em: int) -> tuple[Array, Array]:
    """W [D, R] and v [D] nearest to Sigma' in KL(N(0, Sigma'), N(0, W W' + diag(v))), by EM steps
    of factor analysis from the factor before (Rubin & Thayer 1982; Modi et al. 2024).
    """
    diag = sigma.diag()
    floor = 1e-4 * diag

    def em(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        w, v = carry
        scaled = w / v[:, None]  # [D, R]
        # covariance of the factors given x
        inner = linalg.inv(jnp.eye(w.shape[1], dtype=w.dtype) + w.T @ scaled)
        beta = scaled @ inner  # [D, R]: their mean given x is beta' x
        sb = sigma.times(beta)
        w = linalg.solve(inner + sigma.form(beta), sb.T).T
        return (w, jnp.maximum(diag - jnp.sum(w * sb, 1), floor)), None

    return jax.lax.scan(
        em, (factor, jnp.maximum(diag - jnp.sum(factor**2, 1), 0.1 * diag)), length=num_em
    )[0]
