"""Automatic differentiation variational inference: stochastic gradients of the ELBO, with steps and an end of their own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from vi_jax import estimators
from vi_jax.bounds import elbo
from vi_jax.families import mean_field
from vi_jax.kl import kl_divergence
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.methods import _stationary
from vi_jax.types import Array, Family, LogDensity, Method, MethodInfo, Params


class State(NamedTuple):
    """The optimiser on its rung, and the answer of the rungs before."""

    origin: Array  # [D], the start
    params: Params
    optimizer: Any
    rate: Array  # gamma in units of the optimiser's own: 1, 1/2, 1/4, ...
    iterates: _stationary.Iterates  # of this rung
    answer: Array  # [P], average over the last rung that ended; over late iterates until one has
    rungs: Array  # int32, ended
    cost: Array  # int32, iterates of the last one
    evaluations: Array  # int32
    done: Array  # bool


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
    num_steps: int = 30_000,
) -> Method:
    """Stochastic gradient ascent of the ELBO in any family (Kucukelbir et al. 2017), its step size and its end found as in RAABBVI
    (Welandawe, Andersen, Vehtari & Huggins 2024):

    - at one step size gamma, until the iterates are stationary: the split R-hat of every parameter, on the best of several late
      windows, is below 1.1; the answer is their average, once it is known well enough;
    - then gamma' = gamma / 2 from there, and the answers of two rungs tell how far the optimum is: at distance e_gamma (the root of
      the symmetrised KL) they are sqrt SKL(q_gamma, q_gamma') = e_gamma - e_gamma' apart;
    - the end is where (e_gamma' + accuracy) / e_gamma x K' / (K + K_0) > 1, K and K' the iterates that this rung took and that
      the next will take: what is won no longer pays.

    Parts from the paper in that the rate at which the bias falls, e_gamma ~ gamma, and the doubling of K are taken and not
    regressed over the rungs; that "well enough" is said of q and not of single parameters: the symmetrised KL between averages
    over the window's halves; and in that windows consist of blocks (a memory of fixed size) and Adam is used as it is.

    A run that did not get there says so: `done` stays False.

    Args:
      family: D -> Family (`vi.families.full_rank`), or a Family over D latents; mean-field if not given. Parameters with a "loc"
        [D] start at the start.
      optimizer: of optax, minimising; its updates are halved from rung to rung. Adam at 0.1 if not given.
      num_draws: K of each gradient.
      estimator, bound: of `vi.estimators` and `vi.bounds`.
      accuracy: xi, in units of sqrt SKL; an answer at 0.1 is off by a tenth of a standard deviation in one direction.
      mcse: Monte Carlo standard error that a rung's average may have, in standard deviations for a location.
      r_hat: threshold of stationarity.
      num_steps: gradient steps, at most.

    Returns:
      A Method, also for minibatches. Its `value` is the noisy bound of each step. Steps whose gradient is not finite are skipped.
    """
    family_of = _family_of(mean_field if family is None else family)
    rule = optax.adam(0.1) if optimizer is None else optimizer

    def init(key: Array, log_density: LogDensity, start: Array) -> State:
        del log_density
        params = _placed(family_of(start.size).init(key), start)
        flat, _ = ravel_pytree(params)
        no, one = jnp.int32(0), jnp.ones((), start.dtype)
        return State(start, params, rule.init(params), one, _stationary.empty(flat), flat, no, no, no, jnp.bool_(False))

    def step(key: Array, log_density: LogDensity, state: State) -> tuple[State, MethodInfo]:
        guide_of = family_of(state.origin.size).guide
        key_draws, key_skl = jax.random.split(key)

        def loss(params: Params) -> Array:
            return -estimator(key_draws, bound, log_density, guide_of(params), num_samples=num_draws)

        value, slope = jax.value_and_grad(loss)(state.params)
        flat_slope, unravel = ravel_pytree(slope)
        good = jnp.isfinite(value) & jnp.all(jnp.isfinite(flat_slope))
        updates, rule_state = rule.update(slope, state.optimizer, state.params)
        params = jax.tree.map(lambda p, d: (p + state.rate * d).astype(p.dtype), state.params, updates)
        params, rule_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), (params, rule_state), (state.params, state.optimizer)
        )
        iterates = _stationary.add(state.iterates, ravel_pytree(params)[0])
        new = state._replace(params=params, optimizer=rule_state, iterates=iterates, evaluations=state.evaluations + num_draws)

        def skl(a: Array, b: Array) -> Array:
            return _symmetrised_kl(jax.random.clone(key_skl), guide_of(unravel(a)), guide_of(unravel(b)))

        due = _stationary.at_block(iterates) & (iterates.num >= MIN_WINDOW)
        new = jax.lax.cond(due, lambda s: _examined(s, skl, unravel, accuracy, mcse, r_hat), lambda s: s, new)
        return new, MethodInfo(-value.astype(state.rate.dtype), new.evaluations, new.done)

    def guide(state: State) -> Any:
        _, unravel = ravel_pytree(state.params)
        return family_of(state.origin.size).guide(unravel(state.answer))

    return Method("advi", init, step, guide, num_steps, stochastic=True)


MIN_WINDOW = 200  # iterates before the first look
BASE_COST = 1000  # K_0, iterates
SKL_DRAWS = 100  # where the family has no closed form


def _examined(
    state: State,
    skl: Callable[[Array, Array], Array],
    unravel: Callable[[Array], Params],
    accuracy: float,
    mcse: float,
    r_hat: float,
) -> State:
    """The state after a look at the iterates: on the same rung, on the next one, or done."""
    window = _stationary.best_window(state.iterates)
    # the halves' averages are 2 standard errors of the whole's apart: D locations and D log scales give 4 (1 + 2) D mcse^2
    noise = skl(window.halves[0], window.halves[1])
    ends = (window.r_hat < r_hat) & (noise < 12 * state.origin.size * mcse**2)
    ratio = 0.5  # gamma' / gamma, and e_gamma' / e_gamma
    distance = jnp.sqrt(jnp.maximum(skl(state.answer, window.average), 0.0)) * ratio / (1 - ratio)
    cost = state.iterates.num
    worth = (ratio * distance + accuracy) / (distance + 1e-30) * (cost / ratio) / (cost + BASE_COST)
    done = ends & (state.rungs > 0) & (worth > 1)

    params = jax.tree.map(lambda a, p: jnp.where(ends, a.astype(p.dtype), p), unravel(window.average), state.params)
    fresh = _stationary.empty(window.average)
    return state._replace(
        params=params,
        rate=jnp.where(ends, ratio * state.rate, state.rate),
        iterates=jax.tree.map(lambda a, b: jnp.where(ends, a, b), fresh, state.iterates),
        answer=jnp.where(ends | (state.rungs == 0), window.average, state.answer),
        rungs=state.rungs + ends,
        cost=jnp.where(ends, cost, state.cost),
        done=done,
    )


def _symmetrised_kl(key: Array, q: Any, p: Any) -> Array:
    """KL(q, p) + KL(p, q), nats: closed-form between Gaussians, else from draws of both."""
    if is_gaussian_vector(q):
        return kl_divergence(q, p) + kl_divergence(p, q)

    def difference(z: Any) -> Array:
        return q.log_prob(z) - p.log_prob(z)

    def one(key: Array) -> Array:  # the same noise for both
        return difference(q.sample(key)) - difference(p.sample(jax.random.clone(key)))

    return jnp.mean(jax.vmap(one)(jax.random.split(key, SKL_DRAWS)))


def _family_of(family: Callable[[int], Family] | Family) -> Callable[[int], Family]:
    return (lambda size: family) if isinstance(family, Family) else family


def _placed(params: Params, start: Array) -> Params:
    if isinstance(params, dict) and getattr(params.get("loc"), "shape", None) == start.shape:
        return {**params, "loc": start.astype(params["loc"].dtype)}
    return params
