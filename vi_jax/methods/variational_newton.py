"""Variational online Newton for a Gaussian with a sparse or a full precision."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.gaussian import HALF_LOG_TWO_PI
from vi_jax.methods._cubic_guide import (
    Corrections,
    CubicNormal,
    corrections,
    cubic_normal,
    no_corrections,
)
from vi_jax.methods.flow import run_to_end
from vi_jax.methods.pathfinder import pathfinder
from vi_jax.optimise import curvature as hessians
from vi_jax.optimise.curvature import Curvature, curvature
from vi_jax.sparse import arrow as blocked
from vi_jax.sparse.arrow import Blocks
from vi_jax.types import Array, LogDensity, Method, MethodInfo, select

SPARSE_DRAWS = 4  # Hessians a step
DENSE_DRAWS = 2  # of D products each
GRADIENT_DRAWS = 64  # gradients a step besides
AT_A_TIME = 16  # of them
MIN_STEPS = 8  # before the steps fall
ALONG_THE_LAST = 0.2  # cosine of two gradients in a row: below it, they are noise
MIN_RHO = 1e-3  # below which a step that is not positive definite is given up
GRADIENT_TOLERANCE = 1e-3  # squared length of a mean gradient, per latent


class State(NamedTuple):
    """N(mean, P^-1), and what the late steps say of its skewness."""

    mean: Array  # [D]
    precision: Array  # entries of P [M], in the order of the colouring
    last: Array  # [D], whitened gradient of the last step
    slope: Array  # [D], mean of those of the late steps
    power: Array  # mean of their squared lengths
    third: Array  # [D], mean whitened third derivatives, of the late steps
    corrected: Corrections  # 0 until the end
    step: Array  # int32
    late: Array  # int32
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `variational_newton`."""

    made: Curvature | None
    learning: float
    num_late_steps: int
    max_length: float


def variational_newton(
    made: Curvature | None = None,
    *,
    learning: float = 0.5,
    num_late_steps: int = 20,
    max_length: float = 0.5,
    num_steps: int = 300,
) -> Method:
    """N(mu, P^-1) by natural gradients of the ELBO with exact Hessians (Khan et al. 2018; Lin,
    Schmidt & Khan 2020), P as sparse as the Hessian is, then skewed.

    From `pathfinder`'s answer, with draws of q in antithetic pairs,

        P' = (1 - rho) P + rho E[-H],    mu' = mu + rho P'^-1 E[grad log p].

    H takes as many Hessian-vector products as the columns of its pattern have colours: 3 for a
    chain. Where P' is not positive definite rho is halved, in place of the paper's correction,
    which is not sparse. A step is at most max_length sqrt D long in Fisher's metric. Once gradients
    in a row are noise, rho falls as 1 / t, which makes P the mean of the late Hessians.

    In the coordinates y = L' (u - mu), P = L L', the late steps estimate the third derivative of
    log p along each axis by Stein's identity, E[(g + y) (y^2 - 1)] with g the gradient: the
    skewness of y_i to first order, which the guide takes over. Where a few latents touch many
    others, scale and mean of the others follow them, by exact third derivatives at the end
    (`_cubic_guide.py`).

    Args:
      made: where the Hessian is not zero (`vi_jax.optimise.curvature`); dense if not given, for D
        of up to 1,500.
      learning: rho, before it falls.
      num_late_steps: steps in which it falls; they begin again where a gradient is left.
      max_length: of a step, per sqrt D.
      num_steps: at most.

    Returns:
      A Method; its `value` is an estimate of the ELBO of the Gaussian.
    """
    rules = Rules(made, learning, num_late_steps, max_length)
    return Method(
        "variational_newton",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        partial(_guide, rules=rules),
        num_steps,
    )


def _made(rules: Rules, size: int) -> Curvature:
    return rules.made or curvature(np.ones((size, size), bool))


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    key_init, key_run = jax.random.split(key)
    search = pathfinder()
    state, spent, _ = run_to_end(
        key_run, search, log_density, search.init(key_init, log_density, start)
    )
    q = search.guide(state)
    colouring = _made(rules, start.size).colouring
    is_diagonal = colouring.rows == colouring.columns
    inside = q.basis @ (q.factor @ q.factor.T - jnp.eye(len(q.factor), dtype=start.dtype))
    variance = q.scale**2 * (1 + jnp.sum(inside * q.basis, axis=1))
    precision = jnp.where(is_diagonal, 1 / variance[colouring.rows], 0.0)
    none = jnp.zeros_like(start)
    corrected = no_corrections(_made(rules, start.size).arrow, start.dtype)
    zero = jnp.int32(0)
    return State(q.loc, precision, none, none, none[0], none, corrected, zero, zero, spent)


class _Drawn(NamedTuple):
    """What a step's draws say."""

    value: Array  # ELBO, nats
    slope: Array  # E[grad log p], [D]
    entries: Array  # E[H], [M]
    third: Array  # [D]


def _draw(
    key: Array, log_density: LogDensity, mean: Array, factor: Blocks, made: Curvature
) -> _Drawn:
    key_hessian, key_gradient = jax.random.split(key)
    arrow = made.arrow
    size = mean.size

    def pairs(key: Array, number: int) -> tuple[Array, Array]:
        half = jax.random.normal(key, (number // 2, size), mean.dtype)
        eps = jnp.concatenate([half, -half])
        return eps, mean + jax.vmap(lambda e: blocked.solve_upper(arrow, factor, e))(eps)

    eps_hessian, z_hessian = pairs(key_hessian, _num_hessians(made))
    at_hessian = partial(hessians.entries, log_density, colouring=made.colouring)
    value_hessian, slope_hessian, entries = jax.lax.map(at_hessian, z_hessian)
    eps_gradient, z = pairs(key_gradient, GRADIENT_DRAWS)
    value, slope = jax.lax.map(jax.value_and_grad(log_density), z, batch_size=AT_A_TIME)

    whitened = jax.vmap(lambda g: blocked.solve_lower(arrow, factor, g))(slope)
    third = jnp.mean((whitened + eps_gradient) * (eps_gradient**2 - 1), axis=0)
    eps = jnp.concatenate([eps_hessian, eps_gradient])
    log_p = jnp.concatenate([value_hessian, value])
    elbo = jnp.mean(log_p + 0.5 * jnp.sum(eps**2, axis=1)) + size * HALF_LOG_TWO_PI
    return _Drawn(
        elbo - blocked.log_det(arrow, factor),
        jnp.concatenate([slope_hessian, slope]).mean(0),
        entries.mean(0),
        third,
    )


def _num_hessians(made: Curvature) -> int:
    is_dense = made.colouring.num_colours == len(made.colouring.colours)
    return DENSE_DRAWS if is_dense else SPARSE_DRAWS


def _factor(made: Curvature, precision: Array) -> Blocks:
    return blocked.cholesky(made.arrow, hessians.blocks(made, precision))


def _towards(
    precision: Array, wanted: Array, rho: Array, made: Curvature
) -> tuple[Array, Blocks, Array]:
    """The precision moved, its factor, and the share of the way that it was moved."""

    def moved(rho: Array) -> tuple[Array, Blocks, Array]:
        new = precision + rho * (wanted - precision)
        return new, _factor(made, new), rho

    def is_bad(carry: tuple[Array, Blocks, Array]) -> Array:
        is_definite = jnp.isfinite(blocked.log_det(made.arrow, carry[1]))
        return ~is_definite & (carry[2] > MIN_RHO)

    return jax.lax.while_loop(is_bad, lambda carry: moved(0.5 * carry[2]), moved(rho))


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    made = _made(rules, state.mean.size)
    arrow = made.arrow
    size = state.mean.size
    factor = _factor(made, state.precision)
    drawn = _draw(key, log_density, state.mean, factor, made)

    # 1. the step
    fall = 1 / (1 / rules.learning + state.late).astype(state.mean.dtype)
    precision, new_factor, rho = _towards(state.precision, -drawn.entries, fall, made)
    inside = blocked.solve_lower(arrow, new_factor, drawn.slope)
    move = blocked.solve_upper(arrow, new_factor, inside)
    length = jnp.sqrt(inside @ inside)
    is_short = rho * length < rules.max_length * size**0.5
    share = jnp.minimum(rho, rules.max_length * size**0.5 / (length + 1e-30))
    mean = state.mean + share * move

    # 2. whether only noise is left
    whitened = blocked.solve_lower(arrow, factor, drawn.slope)
    power = whitened @ whitened
    cosine = whitened @ state.last / jnp.sqrt(power * (state.last @ state.last) + 1e-30)
    is_noise = (state.step > MIN_STEPS) & is_short & (cosine < ALONG_THE_LAST)
    good = jnp.isfinite(drawn.value) & jnp.all(jnp.isfinite(mean))
    good = good & jnp.all(jnp.isfinite(precision))
    late = jnp.where((state.late > 0) | is_noise, state.late + 1, 0).astype(jnp.int32)
    weight = jnp.where(late > 0, 1 / jnp.maximum(late, 1), 1.0).astype(mean.dtype)
    slope = state.slope + weight * (whitened - state.slope)
    power = state.power + weight * (power - state.power)
    third = state.third + weight * (drawn.third - state.third)

    # 3. the end
    ended = late >= rules.num_late_steps
    rest = slope @ slope < 4 * power / jnp.maximum(late, 1) + GRADIENT_TOLERANCE * size
    done = ended & rest & good
    late = jnp.where(ended & ~rest, 0, late)
    spent = GRADIENT_DRAWS + _num_hessians(made) * (1 + made.cost)
    at_end = jnp.where(done, 2 * state.corrected.scale.shape[1] * made.cost, 0)
    evaluations = state.evaluations + spent + at_end.astype(jnp.int32)
    step = state.step + 1
    corrected = jax.lax.cond(
        done,
        lambda: corrections(log_density, mean, precision, made),
        lambda: state.corrected,
    )
    new = State(mean, precision, whitened, slope, power, third, corrected, step, late, evaluations)
    kept = select(good, new, state._replace(step=step, evaluations=evaluations))
    value = jnp.where(good, drawn.value, jnp.nan).astype(mean.dtype)
    return kept, MethodInfo(value, evaluations, done)


def _guide(state: State, rules: Rules) -> CubicNormal:
    made = _made(rules, state.mean.size)
    third = jnp.where(state.late > 0, state.third, 0.0)
    return cubic_normal(state.mean, state.precision, third, made, state.corrected)
