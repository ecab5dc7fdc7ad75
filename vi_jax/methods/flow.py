"""A normalising flow on top of a Gaussian."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vi_jax import estimators, linalg
from vi_jax.bounds import elbo
from vi_jax.families import real_nvp
from vi_jax.methods._placed import Placed, log_det
from vi_jax.methods.bam import bam
from vi_jax.types import Array, Family, LogDensity, Method, MethodInfo, Params, select


class State(NamedTuple):
    """The flow over x, with u = loc + root x."""

    params: Params
    optimizer: Any
    loc: Array  # [D]
    root: Array  # [D, D]
    num_steps: Array  # int32
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `flow`."""

    family: Callable[[int], Family]
    estimator: Callable[..., Array] | None
    num_draws: int
    num_steps: int
    ascent: Method
    rule: optax.GradientTransformation


def flow(
    family: Callable[[int], Family] = real_nvp,
    *,
    start: Method | None = None,
    estimator: Callable[..., Array] | None = estimators.stl,
    num_draws: int = 256,
    learning_rate: float = 5e-3,
    num_steps: int = 2_000,
    restarts: Sequence[int] = (),
) -> Method:
    """A flow over coordinates in which a Gaussian found first is standard, by the recipe that
    Agrawal & Domke (2025) found to work: RealNVP, gradients that stick the landing (Roeder et al.
    2017, eq. 8), many samples, Adam at one small step; the step then falls to 0 over the last half,
    which averages.

    `start` (whose guide has `loc` and `covariance_matrix`) runs to its end inside `init`; the flow
    begins at its Gaussian, so that badly scaled posteriors are no worse than round ones. Where that
    Gaussian misses a mode, so will the flow.

    Args:
      family: D -> Family of the flow over [D].
      start: the method that finds the Gaussian; `bam` if not given, whose moments are a better
        scale than `pathfinder`'s best ELBO: a banana of scales 50 and 1/1000 around (300, 0) is met
        within 0.01 nats from the one, and missed by 12 from the other.
      estimator: of `vi.estimators`. `stl` takes log q at samples by the inverse of a frozen q: as
        cheap as the flow for real_nvp, neural_spline and maf. None for those whose inverse costs
        more (iaf, planar, radial, sylvester): plain gradients, samples and densities together by
        `sample_and_log_prob`, no inverse.
      num_draws: gradient evaluations a step.
      learning_rate: of Adam.
      num_steps: of Adam.
      restarts: steps at which the rate has fallen to 0 once already, and begins anew (Loshchilov &
        Hutter 2017): the flow is an answer there.

    Returns:
      A Method for D of up to some hundreds; its `value` is the ELBO of a step's samples. Steps that
      are not finite are skipped.
    """
    ascent = start or bam()
    rate = _rate(learning_rate, (0, *restarts, num_steps))
    rule = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    rules = Rules(family, estimator, num_draws, num_steps, ascent, rule)
    return Method(
        "flow",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        partial(_guide, rules=rules),
        num_steps,
        ascent.stochastic,
    )


def _rate(most: float, edges: tuple[int, ...]) -> optax.Schedule:
    """Between two edges constant, and then linear to 0 over the second half."""
    schedules = []
    boundaries = []
    for first, last in pairwise(edges):
        half = (last - first) // 2
        schedules.append(optax.constant_schedule(most))
        schedules.append(optax.linear_schedule(most, 0.0, last - first - half))
        boundaries += [first + half, last]
    return optax.join_schedules(schedules, boundaries[:-1])


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    key_init, key_ascent, key_params = jax.random.split(key, 3)
    held, spent, _ = run_to_end(
        key_ascent, rules.ascent, log_density, rules.ascent.init(key_init, log_density, start)
    )
    q = rules.ascent.guide(held)
    root = linalg.cholesky(q.covariance_matrix)
    params = jax.tree.map(
        lambda leaf: leaf.astype(start.dtype), rules.family(start.size).init(key_params)
    )
    return State(params, rules.rule.init(params), q.loc, root, jnp.int32(0), spent)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    guide_of = rules.family(state.loc.size).guide
    shift = log_det(state.root)

    def inside(x: Array) -> Array:
        return log_density(state.loc + state.root @ x) + shift

    def loss(params: Params) -> Array:
        if rules.estimator is not None:
            return -rules.estimator(
                key, elbo, inside, guide_of(params), num_samples=rules.num_draws
            )
        x, log_q = _draw(key, guide_of(params), rules.num_draws)
        return jnp.mean(log_q - jax.vmap(inside)(x))

    value, gradient = jax.value_and_grad(loss)(state.params)
    updates, optimizer = rules.rule.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    good = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
    kept: Any = select(good, (params, optimizer), (state.params, state.optimizer))
    new = state._replace(
        params=kept[0],
        optimizer=kept[1],
        num_steps=state.num_steps + 1,
        evaluations=state.evaluations + rules.num_draws,
    )
    return new, MethodInfo(
        jnp.where(good, -value, jnp.nan), new.evaluations, new.num_steps >= rules.num_steps
    )


def _guide(state: State, rules: Rules) -> Placed:
    return Placed(rules.family(state.loc.size).guide(state.params), state.loc, state.root)


def run_to_end(
    key: Array, method: Method, log_density: LogDensity, state: Any
) -> tuple[Any, Array, Array]:
    """A method run to its end: its state, the gradient evaluations it took, and its value."""

    def unfinished(carry: tuple[Any, MethodInfo, Array]) -> Array:
        return (carry[2] < method.num_steps) & ~carry[1].done

    def body(carry: tuple[Any, MethodInfo, Array]) -> tuple[Any, MethodInfo, Array]:
        state, before, number = carry
        state, info = method.step(jax.random.fold_in(key, number), log_density, state)
        return (
            state,
            MethodInfo(info.value.astype(before.value.dtype), info.evaluations, info.done),
            number + 1,
        )

    dtype = jax.eval_shape(lambda state: method.guide(state).loc, state).dtype
    nothing = MethodInfo(jnp.full((), -jnp.inf, dtype), jnp.int32(0), jnp.bool_(False))
    state, info, _ = jax.lax.while_loop(unfinished, body, (state, nothing, jnp.int32(0)))
    return state, info.evaluations, info.value


def _draw(key: Array, q: Any, num_draws: int) -> tuple[Array, Array]:
    if hasattr(q, "sample_and_log_prob"):
        return q.sample_and_log_prob(key, (num_draws,))
    x = q.sample(key, (num_draws,))
    return x, jax.vmap(q.log_prob)(x)
