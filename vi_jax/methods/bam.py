"""Batch and match (BaM): Gaussian variational inference by matching scores."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.methods.pathfinder import State as Path
from vi_jax.methods.pathfinder import advance, begin
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select

# of the paths, see `pathfinder`
_MEMORY = 32
_SEARCH_TOLERANCE = 1e-4
_ELBO_DRAWS = 10
_EARLY_WEIGHT = 100.0  # weight of a step that mostly replaces
_RADIUS = 2.0  # of the cube, unconstrained, that further paths start in
_KL_TOLERANCE = 0.05  # nats, symmetrised KL of a late move
# of an early move, nats per latent: new samples leave the Gaussian where it is, and there is no
# noise to average
_EXACT_TOLERANCE = 1e-4


_USUAL_EVALUATIONS = 2_000  # up to some tens of latents


class State(NamedTuple):
    """The paths of `pathfinder` that give the start, then N(mean, root root')."""

    ascent: Path  # of each path
    done: Array  # bool, of each path
    mean: Array  # [D]
    root: Array  # [D, D], lower triangular
    step: Array  # int32, steps since the start
    late: Array  # int32, steps since the moves stopped shrinking: from there on steps average
    drift: Array  # symmetrised KL of the last move, nats
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `bam`."""

    batch_size: int | None
    num_late_steps: int
    learning: float
    max_early_steps: int
    num_paths: int
    max_ascent_steps: int


def bam(
    *,
    batch_size: int | None = None,
    num_late_steps: int = 60,
    learning: float = 4.0,
    max_early_steps: int = 40,
    num_paths: int = 4,
    max_ascent_steps: int = 200,
) -> Method:
    """Full-rank N(mu, Sigma) by proximal steps on the score-based divergence (Cai et al. 2024).

    A step takes B samples z of q, and with their mean z_, covariance C, scores g = grad log p(z),
    the mean g_ and covariance G of those solves, for weight w,

        Sigma' U Sigma' + Sigma' = V
        U = w G + w/(1+w) g_ g_'
        V = Sigma + w C + w/(1+w) (mu - z_)(mu - z_)'
        mu' = (mu + w (Sigma' g_ + z_)) / (1 + w).

    A Gaussian target is met exactly in one step of large w with B > D. `pathfinder` gives the
    start. Where the paper lets w fall from the first step, it stays large here until
    moves stop shrinking (their symmetrised KL), so that a poor start is left; then w = learning / t
    averages over the samples. Where two moves with the large weight are none, the posterior is
    Gaussian as far as samples can tell, and that is the end.

    Args:
      batch_size: B, gradient evaluations a step; max(32, D + 8) if not given.
      num_paths: of `pathfinder`, from as many locations; the Gaussian of highest ELBO on them is
        the start.
      num_late_steps: steps that average.
      learning: of their weights.
      max_early_steps: at most, before those.
      max_ascent_steps: evaluations of each path, at most.

    Returns:
      A Method for D of up to some hundreds: a step is O(D^3). Its `value` is the ELBO of
      `pathfinder`'s Gaussian, then an estimate of it from the same samples.
    """
    rules = Rules(
        batch_size, num_late_steps, learning, max_early_steps, num_paths, max_ascent_steps
    )
    return Method(
        "bam",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        _guide,
        max_ascent_steps + max_early_steps + 2 * num_late_steps,
        seen=_seen,
        usual_evaluations=_USUAL_EVALUATIONS,
    )


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    del log_density
    places = (
        jax.random.uniform(key, (rules.num_paths, start.size), start.dtype, -_RADIUS, _RADIUS)
        .at[0]
        .set(start)
    )
    state = jax.vmap(lambda place: begin(place, memory=min(max(start.size, 6), _MEMORY)))(places)
    infinite = jnp.full((), jnp.inf, start.dtype)
    zero = jnp.int32(0)
    done = jnp.zeros(rules.num_paths, bool)
    return State(
        state, done, start, jnp.eye(start.size, dtype=start.dtype), zero, zero, infinite, zero
    )


def _search(
    eps: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    moved, info = jax.vmap(
        lambda eps, one: advance(eps, log_density, one, tolerance=_SEARCH_TOLERANCE)
    )(eps, state.ascent)

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(state.done.reshape(-1, *[1] * (new.ndim - 1)), old, new)

    new: Path = jax.tree.map(keep, moved, state.ascent)
    best = jnp.argmax(new.best_elbo)
    q = jax.tree.map(lambda leaf: leaf[best], new.best)
    spent = new.search.evaluations
    state = state._replace(
        ascent=new,
        done=state.done | info.done | (spent >= rules.max_ascent_steps),
        evaluations=spent.sum(dtype=jnp.int32),
    )
    state = state._replace(mean=q.loc, root=_root(q.covariance_matrix))
    return state, MethodInfo(new.best_elbo[best], state.evaluations, jnp.bool_(False))


def _match(
    eps: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    mean = state.mean
    root = state.root
    size = eps.shape[0]
    log_p, scores = jax.vmap(jax.value_and_grad(log_density))(mean + eps @ root.T)
    weight = jnp.where(
        state.late > 0, rules.learning / jnp.maximum(state.late, 1), _EARLY_WEIGHT
    ).astype(mean.dtype)
    shift, sigma = _matched(eps, scores @ root, weight)
    factor = _root(sigma)
    drift = _symmetrised_kl(shift, sigma, factor)
    good = jnp.isfinite(drift)
    shrinks = (drift < 0.5 * state.drift) | (drift > mean.size)
    settled = (
        (state.late > 0) | ~shrinks & (state.step >= 2) | (state.step >= rules.max_early_steps)
    )
    moved = state._replace(
        mean=mean + root @ shift, root=root @ factor, drift=drift, late=state.late + settled
    )
    new = select(good, moved, state)
    new = new._replace(step=state.step + 1, evaluations=state.evaluations + size)
    log_q = (
        -0.5 * jnp.sum(eps**2, 1)
        - jnp.log(jnp.diagonal(root)).sum()
        - 0.5 * mean.size * jnp.log(2 * jnp.pi)
    )
    value = jnp.where(good, jnp.mean(log_p - log_q), jnp.nan)
    averaged = (new.late >= rules.num_late_steps) & (drift < _KL_TOLERANCE)
    # twice in a row, which is no chance
    exact = (state.late == 0) & (jnp.maximum(drift, state.drift) < _EXACT_TOLERANCE * mean.size)
    return new, MethodInfo(value, new.evaluations, averaged | exact)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    # all samples before the cond: under vmap both of its branches run
    key_search, key_match = jax.random.split(key)
    num = state.mean.size
    dtype = state.mean.dtype
    eps_search = jax.random.normal(key_search, (rules.num_paths, _ELBO_DRAWS, num), dtype)
    eps_match = jax.random.normal(key_match, (rules.batch_size or max(32, num + 8), num), dtype)
    both = (
        lambda s: _match(eps_match, log_density, s, rules),
        lambda s: _search(eps_search, log_density, s, rules),
    )
    return jax.lax.cond(jnp.all(state.done), *both, state)


def _guide(state: State) -> Any:
    return dist.MultivariateNormal(state.mean, scale_tril=state.root, validate_args=False)


def _seen(state: State) -> tuple[Array, Array]:
    return state.ascent.best.loc, state.ascent.best_elbo


def _matched(eps: Array, scores: Array, weight: Array) -> tuple[Array, Array]:
    """mu' and Sigma' in the coordinates where q = N(0, I) drew eps [B, D] and saw scores [B, D]
    (Cai et al. 2024, match).
    """
    size = eps.shape[0]
    share = weight / (1 + weight)
    z_mean = eps.mean(0)
    g_mean = scores.mean(0)
    e = eps - z_mean
    g = scores - g_mean
    u = weight * (g.T @ g) / size + share * jnp.outer(g_mean, g_mean)
    v = (
        jnp.eye(eps.shape[1], dtype=eps.dtype)
        + weight * (e.T @ e) / size
        + share * jnp.outer(z_mean, z_mean)
    )
    sigma = _solve(u, v)
    return share * (sigma @ g_mean + z_mean), sigma


def _solve(u: Array, v: Array) -> Array:
    """The positive definite S of S U S + S = V: 2 L (I + (I + 4 L' U L)^(1/2))^-1 L' with V = L L'
    (Cai et al. 2024).
    """
    root = linalg.cholesky(v)
    values, vectors = linalg.eigh(root.T @ u @ root)
    inner = 2.0 / (1.0 + jnp.sqrt(1.0 + 4.0 * jnp.maximum(values, 0.0)))
    half = root @ (vectors * jnp.sqrt(inner))
    return half @ half.T


def _root(sigma: Array) -> Array:
    return linalg.cholesky(0.5 * (sigma + sigma.T))


def _symmetrised_kl(shift: Array, sigma: Array, factor: Array) -> Array:
    """KL(q', q) + KL(q, q') of q' = N(shift, sigma) and q = N(0, I), nats."""
    inverse = linalg.cho_solve((factor, True), jnp.eye(shift.size, dtype=shift.dtype))
    return 0.5 * (
        jnp.trace(sigma)
        + jnp.trace(inverse)
        - 2 * shift.size
        + shift @ shift
        + shift @ (inverse @ shift)
    )
