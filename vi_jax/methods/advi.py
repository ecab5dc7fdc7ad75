"""Automatic differentiation variational inference (ADVI): stochastic gradients of the ELBO, with
automatic step sizes and a stopping rule.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree

from vi_jax import estimators
from vi_jax.bounds import elbo
from vi_jax.families import Flow, full_rank, mean_field
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.methods._units import DENSE_UP_TO, Units, ascend
from vi_jax.optimise import own_units, step_size
from vi_jax.sampling import antithetic
from vi_jax.types import (
    Array,
    Family,
    LogDensity,
    Method,
    MethodInfo,
    Params,
    family_of_size,
    select,
)

# Adam's step in a Gaussian's own units, and in parameters as they are
OWN_UNITS_STEP = 0.1
RAW_STEP = 0.01
MIN_RAW_ITERATES = 1_000  # iterates of a stage at that: a drift shows later where steps are smaller
MAX_GAUSSIAN_STEPS = 2_000  # steps of the Gaussian in whose coordinates a family begins
NUM_PROBES = 4  # samples of the guide from noise that stays, by which it is seen to be stationary


class State(NamedTuple):
    """The optimiser on its stage, and the answer of the stages before."""

    units: Units  # in which the guide lives
    params: Params
    optimizer: Any
    schedule: step_size.Schedule
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `advi`."""

    optimizer: optax.GradientTransformation | None
    num_draws: int
    estimator: Callable[..., Array]
    bound: Callable[[Array], Array]
    accuracy: float
    mcse: float
    r_hat: float
    max_ascent: int
    family_of: Callable[[int], Family]
    mirrors: bool


def advi(
    family: Callable[[int], Family] | Family | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    num_draws: int = 10,
    estimator: Callable[..., Array] = estimators.reparam,
    bound: Callable[[Array], Array] = elbo,
    accuracy: float = 0.1,
    mcse: float = 0.05,
    r_hat: float = 1.1,
    max_ascent: int = 200,
    num_steps: int = 30_000,
) -> Method:
    """Stochastic gradients of the ELBO in any family (Kucukelbir et al. 2017), its step size
    and its end found as in RAABBVI (Welandawe, Andersen, Vehtari & Huggins 2024; `step_size.py` has
    the rule and where it parts from the paper).

    All families live in the coordinates of the best Gaussian of `pathfinder`, or of that of the
    curvature there (of eight minibatches' density where there are minibatches), in which the
    posterior is about a standard normal whatever its units and, for full rank and for flows, its
    correlations (a flow on top of a Gaussian, as in `flow`). Other families are scaled and shifted,
    coordinate by coordinate, so that the answer is in the family that was given.

    Mean-field and full-rank Gaussians are moved in their own units (`own_units.py`): an update of
    0.1 is a tenth of the guide's standard deviation at that step. Others are moved in their
    parameters as they are, by smaller steps: a network's diverges at 0.1. Many parameters of those
    make the same guide and need not be stationary: what has to is the guide, watched by samples
    from noise that stays.

    A run that has not converged says so: `done` stays False.

    Args:
      family: D -> Family (`vi.families.full_rank`), or a Family over D latents; mean-field if not
        given.
      optimizer: of optax, minimising; it sees gradients in the guide's units, and its updates are
        halved from stage to stage. Adam at 0.1 if not given, at 0.01 for families that have no
        units of their own.
      num_draws: K of each gradient; an even number of a Gaussian's are mirrored in pairs, but for
        estimators that need them independent.
      estimator, bound: of `vi.estimators` and `vi.bounds`.
      accuracy: xi, in units of sqrt SKL; an answer at 0.1 is off by a tenth of a standard deviation
        in one direction.
      mcse: Monte Carlo standard error that a stage's average may have, in standard deviations for a
        location.
      r_hat: threshold of stationarity.
      max_ascent: gradients of `pathfinder`, at most; 0 starts at the start, with the family's own
        parameters and units.
      num_steps: gradient steps after it, at most.

    Returns:
      A Method, also for minibatches. Its `value` is the noisy bound of each step. Steps whose
      gradient is not finite are skipped.
    """
    family_of = family_of_size(family or mean_field)
    mirrors = num_draws % 2 == 0 and estimator in (estimators.reparam, estimators.stl)
    rules = Rules(
        optimizer,
        num_draws,
        estimator,
        bound,
        accuracy,
        mcse,
        r_hat,
        max_ascent,
        family_of,
        mirrors,
    )
    return Method(
        "advi",
        partial(_init, rules=rules),
        partial(_step, rules=rules),
        partial(_guide, rules=rules),
        num_steps,
        stochastic=True,
    )


def _rule_of(params: Params, rules: Rules) -> optax.GradientTransformation:
    if rules.optimizer is not None:
        return rules.optimizer
    rate = RAW_STEP if own_units.kind(params) is None else OWN_UNITS_STEP
    return optax.adam(rate)


def _init(key: Array, log_density: LogDensity, start: Array, rules: Rules) -> State:
    key_params, key_ascent = jax.random.split(key)
    params = rules.family_of(start.size).init(key_params)
    units = Units(jnp.zeros_like(start), jnp.ones_like(start))
    evaluations = jnp.int32(0)
    if not rules.max_ascent:
        params = own_units.at(params, start)
    elif own_units.kind(params) is None:
        full = isinstance(rules.family_of(start.size).guide(params), Flow)
        units, evaluations = _gaussian(
            key_ascent, log_density, start, max_ascent=rules.max_ascent, full=full
        )
    else:
        full = own_units.kind(params) == own_units.FULL
        units, evaluations = ascend(
            key_ascent, log_density, start, max_steps=rules.max_ascent, full=full
        )
    schedule = step_size.begin(_watched(params, rules.family_of(start.size).guide))
    return State(units, params, _rule_of(params, rules).init(params), schedule, evaluations)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    size = state.units.loc.size
    guide_of = rules.family_of(size).guide
    key_draws, key_skl = jax.random.split(key)

    def loss(params: Params) -> Array:
        q = guide_of(params)
        # what a minibatch says of the mean cancels in the gradient of the scale
        if rules.mirrors and is_gaussian_vector(q):
            q = antithetic(q)
        return -rules.estimator(
            key_draws, rules.bound, state.units.density(log_density), q, num_samples=rules.num_draws
        )

    value, slope = jax.value_and_grad(loss)(state.params)
    params, optimizer_state = own_units.moved(
        _rule_of(state.params, rules),
        state.params,
        state.optimizer,
        value,
        slope,
        state.schedule.rate,
    )
    flat, unravel = ravel_pytree(params)
    num = flat.size

    data_skl = jax.random.key_data(key_skl)
    impl = jax.random.key_impl(key_skl)

    def skl(a: Array, b: Array) -> Array:  # with the same noise at every call, on purpose
        q = guide_of(unravel(a[:num]))
        p = guide_of(unravel(b[:num]))
        return step_size.symmetrised_kl(jax.random.wrap_key_data(data_skl, impl=impl), q, p)

    watched = _watched(params, guide_of)
    ending = step_size.Rule(rules.accuracy, rules.mcse, rules.r_hat)
    if own_units.kind(params) is None:
        ending = ending._replace(least=MIN_RAW_ITERATES, averaged=num)
    schedule, ended = step_size.advance(state.schedule, watched, skl, ending, size=size)
    params = select(ended, unravel(schedule.answer[:num]), params)
    new = State(state.units, params, optimizer_state, schedule, state.evaluations + rules.num_draws)
    return new, MethodInfo(-value.astype(schedule.rate.dtype), new.evaluations, schedule.done)


def _guide(state: State, rules: Rules) -> Any:
    flat, unravel = ravel_pytree(state.params)
    return state.units.guide(
        rules.family_of(state.units.loc.size).guide(unravel(state.schedule.answer[: flat.size]))
    )


def _gaussian(
    key: Array, log_density: LogDensity, start: Array, *, max_ascent: int, full: bool
) -> tuple[Units, Array]:
    """The coordinates of a Gaussian on the first stage of its own ADVI, and the gradients that it
    took: where `pathfinder` has stopped short of the mass, a Gaussian moved in its own units still
    gets there, and a network does not.
    """
    family = full_rank if full and start.size <= DENSE_UP_TO else mean_field
    method = advi(family, max_ascent=max_ascent)
    key_init, key_run = jax.random.split(key)

    def going(carry: tuple[State, Array]) -> Array:
        return (carry[0].schedule.stages == 0) & (carry[1] < MAX_GAUSSIAN_STEPS)

    def advance(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, number = carry
        return method.step(jax.random.fold_in(key_run, number), log_density, state)[0], number + 1

    state, _ = jax.lax.while_loop(
        going, advance, (method.init(key_init, log_density, start), jnp.int32(0))
    )
    q = method.guide(state)
    root = q.scale_tril if isinstance(q, dist.MultivariateNormal) else q.base_dist.scale
    return Units(q.mean, root), state.evaluations


def _watched(params: Params, guide_of: Callable[[Params], Any]) -> Array:
    """The parameters [P], and for families without units of their own samples [NUM_PROBES D] from
    the same noise at every call.
    """
    flat, _ = ravel_pytree(params)
    if own_units.kind(params) is not None:
        return flat
    draws = guide_of(params).sample(jax.random.key(0), (NUM_PROBES,))
    return jnp.concatenate([flat, draws.ravel()])
