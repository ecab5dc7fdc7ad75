"""Nested Laplace approximation: a few hyperparameters, and a Gaussian of the rest given them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.methods import _inner
from vi_jax.methods._nested_guide import (
    Follows,
    NestedGaussian,
    Skewed,
    column_latents,
    features,
    join,
    powers,
    split,
)
from vi_jax.methods._skew import shape_of_skewness
from vi_jax.optimise.curvature import Curvature, curvature
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select

MAX_HYPERS = 12
NUM_FEWEST = 64  # values of the hyperparameters in a step, at least
PER_FEATURE = 3  # and so many for each polynomial
AT_A_TIME = 16  # of them
FIRST_SCALE = 0.5  # of each hyperparameter
MAX_STRETCH = 3.0  # of a scale in one step
MAX_MOVE = 3.0  # of the mean in one step, in standard deviations
CLOSE = 0.3  # standard deviations, and share of a scale: a step that is shorter is the last
MIN_SHARE = 0.5  # of effective values for an end
MIN_SCALE = 0.2  # of one axis, in those of the step
NUM_MATCHED = 3  # steps by moments, at least


class State(NamedTuple):
    """q(hyper), and how the rest follows."""

    hyper: Skewed
    follows: Follows
    mode: Array  # [n], of the rest at the middle of the hyperparameters
    matched: Array  # int32, steps by moments so far
    evaluations: Array  # int32


class _Found(NamedTuple):
    """The rest's Gaussian at one value of the hyperparameters."""

    log_integral: Array  # nats
    row: Array  # mean [n], log diagonal [n] and other entries [M] of the precision's factor
    mode: Array  # [n]
    evaluations: Array


class Rules(NamedTuple):
    """The numbers of `nested_laplace`."""

    hypers: tuple[int, ...]
    made: Curvature | None


def nested_laplace(
    hypers: Sequence[int] = (0,), made: Curvature | None = None, *, num_steps: int = 40
) -> Method:
    """q(hyper) q(rest | hyper) for a posterior whose rest is near a Gaussian given a few
    hyperparameters (Rue, Martino & Chopin 2009), for any log density.

    At values of the hyperparameters the rest's mode is found by Newton's method with sparse
    Hessians. Laplace's estimate of the integral over the rest,

        l(hyper) = log p(hyper, z*) + n/2 log 2 pi - 1/2 log det(-H(hyper, z*)),

    is a log density of the hyperparameters. Each step evaluates it at a randomised lattice from
    q(hyper): at first a quadratic in them gives the next q; near its top, the weighted mean,
    covariance and skewness of each axis (adaptive importance sampling). The conditional Gaussian is
    improved by two steps of its ELBO, and its mean and the factor of its precision are fitted by
    polynomials of the hyperparameters, so that samples and densities of the guide need no further
    evaluation. Where Rue et al. report marginals, this is one guide over all latents, with weights.

    Args:
      hypers: latents of u [D] that the rest depends on in a way no Gaussian has (scales), at most
        12; the first if not given.
      made: where the Hessian of the rest is not zero (`vi_jax.optimise.curvature`); dense if not
        given.
      num_steps: at most.

    Returns:
      A Method for D of up to thousands. Its `value` is an estimate of the log evidence, less the
      divergence of q(hyper) from its own posterior, nats.

    Raises:
      ValueError: there are no hyperparameters, too many, or one twice.
    """
    chosen = tuple(int(number) for number in hypers)
    if not 1 <= len(set(chosen)) == len(chosen) <= MAX_HYPERS or min(chosen) < 0:
        raise ValueError(
            f"nested_laplace expects 1 to {MAX_HYPERS} different latents as hyperparameters; got "
            f"{list(chosen)}."
        )
    rules = Rules(chosen, made)
    return Method(
        "nested_laplace",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        partial(_guide, rules=rules),
        num_steps,
    )


def _made(rules: Rules, num_rest: int) -> Curvature:
    return rules.made or curvature(np.ones((num_rest, num_rest), bool))


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    del key, log_density
    if max(rules.hypers) >= start.size or len(rules.hypers) == start.size:
        raise ValueError(
            f"hyperparameters are some of {start.size} latents, and not all; got "
            f"{list(rules.hypers)}."
        )
    hyper, rest = split(start, rules.hypers)
    made = _made(rules, rest.size)
    num_features = len(powers(hyper.size))
    num_lower = len(made.sparsity.rows)
    eye = jnp.eye(hyper.size, dtype=start.dtype)

    def zeros(width: int) -> Array:
        return jnp.zeros((num_features, width), start.dtype)

    return State(
        Skewed(hyper, FIRST_SCALE * eye, jnp.zeros_like(hyper)),
        Follows(hyper, eye, zeros(rest.size).at[0].set(rest), zeros(rest.size), zeros(num_lower)),
        rest,
        jnp.int32(0),
        jnp.int32(0),
    )


def _guide(state: State, rules: Rules) -> NestedGaussian:
    made = _made(rules, state.mode.size)
    return NestedGaussian(state.hyper, state.follows, rules.hypers, made.sparsity)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    q = state.hyper
    made = _made(rules, state.mode.size)
    key_shift, key_signs = jax.random.split(key)

    # 1. the rest's Gaussian, at values of the hyperparameters
    x = lattice(key_shift, q.loc.size).astype(q.loc.dtype)  # [N, h]
    values = jax.vmap(q.transport)(x)
    signs = jax.random.rademacher(key_signs, state.mode.shape, q.loc.dtype)

    def at(hyper: Array, start: Array) -> _Found:
        inner = _inner.solve(
            lambda z: log_density(join(hyper, z, rules.hypers)), start, signs, made
        )
        log_diag, lower = made.sparsity.entries(inner.factor)
        ratio = lower / jnp.exp(log_diag)[column_latents(made.sparsity)]
        row = jnp.concatenate([inner.mean, log_diag, ratio])
        return _Found(inner.log_integral, row, inner.mode, inner.evaluations)

    middle = at(q.loc, state.mode)
    start = jnp.where(jnp.isfinite(middle.log_integral), middle.mode, state.mode)
    found = jax.lax.map(lambda hyper: at(hyper, start), values, batch_size=AT_A_TIME)
    log_p = found.log_integral
    good = jnp.isfinite(log_p)
    log_w = jnp.where(good, log_p - jax.vmap(lambda v: q.inverse(v)[1])(values), -jnp.inf)

    # 2. how the rest follows, in the coordinates of this step
    share = good.astype(q.loc.dtype)
    table = jax.vmap(features)(jax.vmap(partial(_inside, q))(values))
    fitted = _least_squares(table, found.row, share)
    parts = jnp.split(fitted, [start.size, 2 * start.size], axis=1)
    eye = jnp.eye(q.loc.size, dtype=q.loc.dtype)
    inverse_root = linalg.solve_triangular(q.root, eye, lower=True)
    follows = Follows(q.loc, inverse_root, *parts)

    # 3. the next q(hyper)
    weights = jax.nn.softmax(log_w)
    effective = 1 / jnp.sum(weights**2) / len(weights)
    climbed, is_close = _climbed(q, values, log_p)
    matched = _matched(q, values, weights)
    by_moments = (effective > MIN_SHARE) | ((state.matched > 0) & (effective > 0.1)) | is_close
    hyper = select(by_moments, matched, climbed)
    number = jnp.where(by_moments, state.matched + 1, 0).astype(jnp.int32)
    done = (number >= NUM_MATCHED) & (effective > MIN_SHARE)
    hyper = select(done, q, hyper)  # the one that `follows` is about
    spent = state.evaluations + found.evaluations.sum(dtype=jnp.int32) + middle.evaluations
    new = State(hyper, follows, start, number, spent)
    usable = good.sum() > len(powers(q.loc.size))
    kept = select(usable, new, state._replace(evaluations=spent))
    value = jnp.where(usable, jnp.sum(jnp.where(good, log_w, 0)) / jnp.sum(good), jnp.nan)
    return kept, MethodInfo(value.astype(q.loc.dtype), spent, done & usable)


def _inside(q: Skewed, hyper: Array) -> Array:
    """R^-1 (hyper - loc)."""
    return linalg.solve_triangular(q.root, hyper - q.loc, lower=True)


def lattice(key: Array, num_hypers: int) -> Array:
    """Standard normals [N, h] by a randomly shifted Kronecker lattice of the generalised golden
    ratio (Roberts 2018).
    """
    number = max(NUM_FEWEST, PER_FEATURE * len(powers(num_hypers)))
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (num_hypers + 1))
    steps = ratio ** -np.arange(1.0, num_hypers + 1)
    points = jnp.asarray(np.arange(number)[:, None] * steps % 1.0)
    points = (points + jax.random.uniform(key, (num_hypers,), points.dtype)) % 1.0
    return jax.scipy.stats.norm.ppf(jnp.clip(points, 1e-4, 1 - 1e-4))


def _least_squares(table: Array, values: Array, weights: Array) -> Array:
    """Coefficients [F, ...] of values [N, ...]."""
    root = jnp.sqrt(weights)[:, None]
    q, r = linalg.qr(root * table)
    values = jnp.where(weights[:, None] > 0, values, 0)
    return linalg.solve_triangular(r, q.T @ (root * values), lower=False)


def _climbed(q: Skewed, values: Array, log_p: Array) -> tuple[Skewed, Array]:
    """The Gaussian of a quadratic fitted to l(hyper), and whether it is close to q."""
    size = q.loc.size
    x = jax.vmap(partial(_inside, q))(values)
    gap = jnp.max(log_p) - log_p
    good = jnp.isfinite(gap)
    gap = jnp.where(good, gap, 0)
    # what is far below matters less
    temper = jnp.maximum(2.0, jnp.median(gap))
    weights = jnp.where(good, jnp.exp(-gap / temper), 0.0)
    rows, columns = np.tril_indices(size)
    products = x[:, rows] * x[:, columns]
    table = jnp.concatenate([jnp.ones_like(x[:, :1]), x, products], 1)
    found = _least_squares(table, -gap[:, None], weights)[:, 0]
    slope = found[1 : 1 + size]
    bend = jnp.zeros((size, size), x.dtype).at[rows, columns].add(-found[1 + size :])
    values_of, axes = linalg.eigh(bend + bend.T)
    clipped = jnp.clip(values_of, MAX_STRETCH**-2, MAX_STRETCH**2)
    move = axes @ ((axes.T @ slope) / clipped)
    length = jnp.sqrt(move @ move)
    move = move * jnp.minimum(1.0, MAX_MOVE / (length + 1e-30))
    covariance = q.root @ (axes / clipped) @ axes.T @ q.root.T
    near = jnp.all(jnp.abs(jnp.log(jnp.abs(values_of) + 1e-30)) < 2 * CLOSE)
    is_close = near & (length < CLOSE * size**0.5)
    climbed = Skewed(q.loc + q.root @ move, _cholesky(covariance), jnp.zeros_like(q.loc))
    usable = jnp.all(jnp.isfinite(climbed.root)) & jnp.all(jnp.isfinite(move))
    return select(usable, climbed, q), is_close & usable


def _matched(q: Skewed, values: Array, weights: Array) -> Skewed:
    """The weighted mean, covariance and skewness of each axis."""
    y = jax.vmap(partial(_inside, q))(values)
    mean = weights @ y
    centred = y - mean
    covariance = jnp.einsum("n,ni,nj->ij", weights, centred, centred)
    floor = MIN_SCALE**2 * jnp.eye(mean.size, dtype=mean.dtype)
    root = _cholesky(covariance + 1e-3 * floor)
    axes = jax.vmap(lambda row: linalg.solve_triangular(root, row, lower=True))(centred)
    skewness = weights @ axes**3
    matched = Skewed(q.loc + q.root @ mean, q.root @ root, shape_of_skewness(skewness))
    return select(jnp.all(jnp.isfinite(root)), matched, q)


def _cholesky(covariance: Array) -> Array:
    return linalg.cholesky(0.5 * (covariance + covariance.T))
