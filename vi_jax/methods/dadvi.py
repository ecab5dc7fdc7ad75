"""Deterministic ADVI (DADVI): fixed samples, and a second-order optimiser."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import linalg
from vi_jax.methods.pathfinder import FactoredNormal, pathfinder
from vi_jax.types import Array, LogDensity, Method, MethodInfo


class State(NamedTuple):
    """The `pathfinder` that gives the start, N(loc, diag(exp(log_scale))^2), and the trial that
    comes next.

    Steps are in units of Fisher's metric: sigma for a location, 1 / sqrt 2 for a log scale.
    """

    ascent: Any
    ascending: Array  # bool
    draws: Array  # Z [N, D], fixed
    loc: Array  # [D]
    log_scale: Array  # [D]
    # nats, the negative ELBO up to D/2 log 2 pi e; inf before the first evaluation
    objective: Array
    move: Array  # [2 D] to the trial
    promised: Array  # nats that the quadratic model gains by it
    radius: Array  # of the trust region
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `dadvi`."""

    num_draws: int
    tolerance: float
    max_inner: int
    max_ascent: int
    ascent: Method


def dadvi(
    *,
    num_draws: int = 30,
    tolerance: float = 1e-3,
    max_inner: int = 50,
    max_ascent: int = 200,
    num_steps: int = 400,
) -> Method:
    """The mean-field Gaussian of highest ELBO over N samples that stay the same (Giordano, Ingram &
    Broderick 2024),
        min over mu, xi of  -1/N sum_n log p(mu + exp(xi) z_n) - sum_j xi_j,
    by a trust-region Newton method whose inner steps are conjugate gradients with Hessian-vector
    products (Steihaug 1983). Nothing is tuned, and the end is an exact one: the gradient vanishes.
    A step is one trial; a rejected one is shortened by 4 instead of being solved anew, so that the
    log density is differentiated once in the program.

    The paper starts at 0 and unit scales. Here it is the mean-field Gaussian nearest to the best of
    `pathfinder`'s, so that posteriors that are narrow or far away take few steps.

    The standard deviations are those of mean-field: too small wherever the posterior is correlated.
    `linear_response` corrects them, and `frequentist_stderr` says what the samples being few costs.
    `linear_response_of_draws`, which `vi.fit`'s result takes, does so with samples that are
    standardised: exact on a Gaussian, where thirty that are not can leave half a standard
    deviation.

    Args:
      num_draws: N; 30 in the paper.
      tolerance: stop where the gradient's norm, in units of Fisher's metric, is below it; or where
        the next step would gain less than rounding.
      max_inner: conjugate-gradient iterations a step.
      max_ascent: steps of `pathfinder`, at most.
      num_steps: of both, at most.

    Returns:
      A Method; its `value` is that of `pathfinder`, then the ELBO over the fixed samples. An
      evaluation of the objective counts N, a Hessian-vector product 2 N.
    """

    ascent = pathfinder(num_steps=max_ascent)
    rules = Rules(num_draws, tolerance, max_inner, max_ascent, ascent)
    return Method(
        "dadvi", partial(_init, rules=rules), partial(_step, rules=rules), _guide, num_steps
    )


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    key_ascent, key_draws = jax.random.split(key)
    draws = jax.random.normal(key_draws, (rules.num_draws, start.size), start.dtype)
    path = rules.ascent.init(key_ascent, log_density, start)
    infinite = jnp.full((), jnp.inf, start.dtype)
    zero = jnp.zeros((), start.dtype)
    radius = jnp.sqrt(jnp.asarray(start.size, start.dtype))
    nowhere = jnp.zeros(2 * start.size, start.dtype)
    return State(
        path,
        jnp.bool_(True),
        draws,
        start,
        jnp.zeros_like(start),
        infinite,
        nowhere,
        zero,
        radius,
        jnp.int32(0),
    )


def _ascend(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    path, info = rules.ascent.step(key, log_density, state.ascent)
    best = rules.ascent.guide(path)
    new = state._replace(
        ascent=path,
        ascending=~info.done & (info.evaluations < rules.max_ascent),
        loc=best.loc,
        log_scale=log_scales_of(best),
        evaluations=info.evaluations,
    )
    return new, info._replace(done=jnp.bool_(False))


def _newton(log_density: LogDensity, state: State, rules: Rules) -> tuple[State, MethodInfo]:
    here = jnp.concatenate([state.loc, state.log_scale])

    def slope_and_value(p: Array) -> tuple[Array, Array]:
        value, slope = jax.value_and_grad(lambda p: negative_elbo(log_density, state.draws, p))(p)
        return slope, value

    trial = here + state.move
    slope, product, value = jax.linearize(slope_and_value, trial, has_aux=True)
    rounding = 8 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    won = state.objective - value
    first = jnp.isinf(state.objective)
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
    moved = finite & (first | (won > 0.1 * state.promised - rounding))
    ratio = won / (state.promised + 1e-30)
    length = jnp.linalg.norm(state.move / units_of(state.log_scale))
    radius = jnp.where(
        first,
        state.radius,
        jnp.where(ratio > 0.75, jnp.maximum(state.radius, 2 * length), state.radius),
    )
    radius = jnp.where(ratio < 0.25, jnp.minimum(radius, length), radius)
    radius = jnp.where(moved, radius, 0.25 * length)

    point = jnp.where(moved, trial, here)
    loc, log_scale = jnp.split(point, 2)
    units = units_of(log_scale)
    small = jnp.linalg.norm(units * slope) < rules.tolerance
    enter = moved & ~small  # where the trial was rejected its slope is of no use
    inner, promised, products = _steihaug(
        lambda v: units * product(units * v), units * slope, radius, rules.max_inner, enter
    )
    move = jnp.where(moved, units * inner, 0.25 * state.move)
    promised = jnp.where(moved, promised, 0.25 * state.promised)
    evaluations = state.evaluations + rules.num_draws * (1 + 2 * products)
    best = jnp.where(moved, value, state.objective)
    new = State(
        state.ascent,
        state.ascending,
        state.draws,
        loc,
        log_scale,
        best,
        move,
        promised,
        radius,
        evaluations,
    )
    done = moved & (small | (promised < 0.25 * rounding))
    constant = 0.5 * loc.size * jnp.log(2 * jnp.pi * jnp.e)
    return new, MethodInfo((constant - best).astype(value.dtype), evaluations, done)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    return jax.lax.cond(
        state.ascending,
        lambda key, s: _ascend(key, log_density, s, rules),
        lambda key, s: _newton(log_density, s, rules),
        key,
        state,
    )


def _guide(state: State) -> Any:
    scale = jnp.exp(state.log_scale)
    return dist.Normal(state.loc, scale, validate_args=False).to_event(1)


def negative_elbo(log_density: LogDensity, draws: Array, params: Array) -> Array:
    """-1/N sum_n log p(mu + exp(xi) z_n) - sum xi, params = [mu, xi] (Giordano et al. 2024),
    nats.
    """
    loc, log_scale = jnp.split(params, 2)
    return (
        -jnp.mean(jax.vmap(lambda z: log_density(loc + jnp.exp(log_scale) * z))(draws))
        - log_scale.sum()
    )


def log_scales_of(q: FactoredNormal) -> Array:
    """Log scales of the diagonal Gaussian nearest to q in KL(., q): -1/2 log of the diagonal of its
    precision.
    """
    eye = jnp.eye(len(q.factor), dtype=q.loc.dtype)
    inner = linalg.cho_solve((q.factor, True), eye) - eye
    return -0.5 * jnp.log(jnp.maximum(1 + jnp.sum((q.basis @ inner) * q.basis, 1), 1e-6)) + jnp.log(
        q.scale
    )


def units_of(log_scale: Array) -> Array:
    """[2 D]: the lengths over which Fisher's information of N(mu, exp(xi)^2) is 1."""
    return jnp.concatenate([jnp.exp(log_scale), jnp.full_like(log_scale, 2**-0.5)])


def _steihaug(
    product: Any, slope: Array, radius: Array, max_inner: int, enter: Array
) -> tuple[Array, Array, Array]:
    """The x of slope' x + x' H x / 2 that conjugate gradients reach within a ball (Steihaug 1983;
    Nocedal & Wright 2006, ch. 7).

    Returns:
      x; what the quadratic form falls by there; and the products with H that it took, int32.
    """
    norm = jnp.linalg.norm(slope)
    limit = jnp.minimum(0.5, jnp.sqrt(norm)) * norm

    def going(carry: Any) -> Array:
        _, _, r, _, k, end = carry
        return enter & ~end & (k < max_inner) & (jnp.linalg.norm(r) > limit)

    def iterate(carry: Any) -> Any:
        x, hx, r, p, k, _ = carry
        hp = product(p)
        curvature = p @ hp
        rr = r @ r
        alpha = rr / curvature
        out = ~(curvature > 0) | (jnp.linalg.norm(x + alpha * p) >= radius)
        alpha = jnp.where(out, _to_edge(x, p, radius), alpha)
        x = x + alpha * p
        hx = hx + alpha * hp
        new = r + alpha * hp
        return x, hx, new, -new + (new @ new) / rr * p, k + 1, out

    zero = jnp.zeros_like(slope)
    x, hx, _, _, k, _ = jax.lax.while_loop(
        going, iterate, (zero, zero, slope, -slope, jnp.int32(0), jnp.bool_(False))
    )
    return x, -(slope @ x + 0.5 * x @ hx), k


def _to_edge(x: Array, p: Array, radius: Array) -> Array:
    """The tau >= 0 of |x + tau p| = radius."""
    pp = p @ p
    xp = x @ p
    return (-xp + jnp.sqrt(jnp.maximum(xp**2 + pp * (radius**2 - x @ x), 0.0))) / (pp + 1e-30)
