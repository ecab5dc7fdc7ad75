"""Automatic step sizes and a stopping rule for stochastic optimisation: RAABBVI (Welandawe,
Andersen, Vehtari & Huggins 2024), stages of halved step sizes.

- At one step size gamma, until the iterates are stationary: the split R-hat of every parameter, on
  the best of several late windows, is below 1.1; the answer is their average, once it is known well
  enough;
- then gamma' = gamma / 2 from there, and the answers of two stages say how far the optimum is: at
  distance e_gamma (the root of the symmetrised KL) they are sqrt SKL(q_gamma, q_gamma') = e_gamma -
  e_gamma' apart;
- the end is where (e_gamma' + accuracy) / e_gamma x K' / (K + K_0) > 1, K and K' the iterates that
  this stage took and that the next will take: the gain no longer pays.

Differs from the paper in that the rate at which the bias falls, e_gamma ~ gamma, and the doubling
of K are taken and not regressed over the stages; that "well enough" is said of q and not of single
parameters: the symmetrised KL between averages over the window's halves; and in that windows
consist of blocks (a memory of fixed size).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.kl import kl_divergence
from vi_jax.kl.gaussians import is_gaussian_vector
from vi_jax.optimise import averaging
from vi_jax.types import Array, select

MIN_WINDOW = 200  # iterates before the first look
BASE_COST = 1000  # K_0, iterates
SKL_DRAWS = 100  # where the family has no closed form
STEP_RATIO = 0.5  # gamma' / gamma, and e_gamma' / e_gamma


class Schedule(NamedTuple):
    """The stage, and the answer of the stages before."""

    rate: Array  # gamma in units of the optimiser's own: 1, 1/2, 1/4, ...
    iterates: averaging.Iterates  # of this stage
    answer: Array  # [P], average over the last stage that ended; over late iterates until one has
    stages: Array  # int32, ended
    cost: Array  # int32, iterates of the last one
    done: Array  # bool
    # split R-hat of the iterates behind the answer, the largest of the parameters; 0 before the
    # first look
    r_hat: Array
    # Monte Carlo standard error of the answer, root mean square, in standard deviations of the
    # guide for a location
    mcse: Array


class Rule(NamedTuple):
    """Numbers of the rule."""

    accuracy: float  # xi, in units of sqrt SKL
    # Monte Carlo standard error that a stage's average may have, in standard deviations for a
    # location
    mcse: float
    r_hat: float  # threshold of stationarity
    least: int = MIN_WINDOW  # iterates before a stage may end
    averaged: int = 0  # leading numbers of an iterate that are averaged, and need not be stationary


def begin(flat: Array) -> Schedule:
    """On the first stage, with nothing seen, about what is watched: numbers [P]."""
    no = jnp.int32(0)
    unseen = jnp.zeros((), flat.dtype)
    return Schedule(
        jnp.ones((), flat.dtype),
        averaging.empty(flat),
        flat,
        no,
        no,
        jnp.bool_(False),
        unseen,
        unseen,
    )


def advance(
    schedule: Schedule,
    flat: Array,
    skl: Callable[[Array, Array], Array],
    rule: Rule,
    *,
    size: int,
    distance: Array | float = 0.0,
) -> tuple[Schedule, Array]:
    """One more iterate [P]; the schedule after it, and whether a stage has just ended, at `answer`.

    Args:
      skl: the symmetrised KL between the guides of two [P], nats.
      size: D, latents of those guides.
      distance: a distance between the answers of this stage and the last that counts if it is the
        larger, sqrt nats.
    """
    seen = schedule._replace(iterates=averaging.add(schedule.iterates, flat))
    due = averaging.at_block(seen.iterates) & (seen.iterates.num >= MIN_WINDOW)

    def look(schedule: Schedule) -> tuple[Schedule, Array]:
        return _look(schedule, skl, rule, size, distance)

    return jax.lax.cond(due, look, lambda schedule: (schedule, jnp.bool_(False)), seen)


def _look(
    schedule: Schedule,
    skl: Callable[[Array, Array], Array],
    rule: Rule,
    size: int,
    distance: Array | float,
) -> tuple[Schedule, Array]:
    window = averaging.best_window(schedule.iterates, first=rule.averaged)
    # the halves' averages are 2 standard errors of the whole's apart: D locations and D log scales
    # give 4 (1 + 2) D mcse^2
    still = (window.r_hat < rule.r_hat) & (schedule.iterates.num >= rule.least)
    pairs = jnp.stack([window.halves, jnp.stack([schedule.answer, window.average])])
    # compiled once for both
    of_halves, of_answers = jnp.maximum(jax.lax.map(lambda pair: skl(pair[0], pair[1]), pairs), 0.0)
    mcse = jnp.sqrt(of_halves / (12 * size))
    ends = still & (mcse < rule.mcse)
    gap = jnp.maximum(jnp.sqrt(of_answers), distance)
    left = gap * STEP_RATIO / (1 - STEP_RATIO)
    cost = schedule.iterates.num
    worth = (
        (STEP_RATIO * left + rule.accuracy)
        / (left + 1e-30)
        * (cost / STEP_RATIO)
        / (cost + BASE_COST)
    )
    fresh = averaging.empty(window.average)
    newest = ends | (schedule.stages == 0)
    new = Schedule(
        rate=jnp.where(ends, STEP_RATIO * schedule.rate, schedule.rate),
        iterates=select(ends, fresh, schedule.iterates),
        answer=jnp.where(newest, window.average, schedule.answer),
        stages=schedule.stages + ends,
        cost=jnp.where(ends, cost, schedule.cost),
        done=ends & (schedule.stages > 0) & (worth > 1),
        r_hat=jnp.where(newest, window.r_hat, schedule.r_hat).astype(schedule.r_hat.dtype),
        mcse=jnp.where(newest, mcse, schedule.mcse).astype(schedule.mcse.dtype),
    )
    return new, ends


def symmetrised_kl(key: Array, q: Any, p: Any) -> Array:
    """KL(q, p) + KL(p, q), nats: closed-form between Gaussians, else from samples of both."""
    if is_gaussian_vector(q):
        return kl_divergence(q, p) + kl_divergence(p, q)

    def difference(z: Any) -> Array:
        return q.log_prob(z) - p.log_prob(z)

    def one(key: Array) -> Array:  # the same noise for both
        return difference(q.sample(key)) - difference(p.sample(jax.random.clone(key)))

    return jnp.mean(jax.vmap(one)(jax.random.split(key, SKL_DRAWS)))
