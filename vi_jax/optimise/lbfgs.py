"""L-BFGS on a log density, with its inverse Hessian as a diagonal and a few factors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.types import Array, LogDensity

_ARMIJO = 1e-4
_MIN_SIZE = 1e-9


class State(NamedTuple):
    """The state of a search. S and Y hold the last J steps and changes of the gradient, the newest
    last; zero rows are empty.
    """

    u: Array  # [D], the last point accepted
    value: Array  # log p(u), nats; -inf before the first evaluation
    slope: Array  # [D], its gradient
    diagonal: Array  # [D], of the inverse Hessian of -log p that the factors correct
    direction: Array  # [D], the inverse Hessian times the slope: the next trial's
    steps: Array  # S [J, D]
    changes: Array  # Y [J, D], of the gradient of -log p
    size: Array  # of the next trial, in units of H slope
    evaluations: Array  # int32, values with gradients so far
    moved: Array  # bool: the last trial was accepted
    gain: Array  # nats that the next step is expected to gain: half of slope' H slope
    stuck: Array  # bool: no way upwards was found


def start(u: Array, *, memory: int) -> State:
    """At u, with nothing evaluated: the first trial is u itself."""
    empty = jnp.zeros((memory, u.size), u.dtype)
    infinite = jnp.full((), jnp.inf, u.dtype)
    no = jnp.bool_(False)
    nowhere = jnp.zeros_like(u)
    size = jnp.zeros((), u.dtype)
    return State(
        u,
        -infinite,
        nowhere,
        jnp.ones_like(u),
        nowhere,
        empty,
        empty,
        size,
        jnp.int32(0),
        no,
        infinite,
        no,
    )


class InverseHessian(NamedTuple):
    """diag(a) + B' G B."""

    diagonal: Array  # a [D]
    rows: Array  # B [2J, D]
    middle: Array  # G [2J, 2J]

    def times(self, x: Array) -> Array:
        """The inverse Hessian times x [D]."""
        return self.diagonal * x + self.rows.T @ (self.middle @ (self.rows @ x))


def inverse_hessian(a: Array, s: Array, y: Array) -> InverseHessian:
    """diag(a) + B' G B with B = [Y diag(a); S], of -log p (Byrd et al. 1994; Zhang et al. 2022).

    G = [[0, -R^-1], [-R^-T, R^-T (E + Y diag(a) Y') R^-1]], R the upper triangle of S Y', E its
    diagonal.
    """
    products = s @ y.T
    held = jnp.diagonal(products) > 0
    r = jnp.triu(products) + jnp.diag(jnp.where(held, 0.0, 1.0))
    e = jnp.diag(jnp.where(held, jnp.diagonal(products), 0.0))
    r_inv = linalg.solve_triangular(r, jnp.eye(len(s), dtype=a.dtype)) * jnp.outer(held, held)
    corner = r_inv.T @ (e + (y * a) @ y.T) @ r_inv
    g = jnp.block([[jnp.zeros_like(r_inv), -r_inv], [-r_inv.T, corner]])
    return InverseHessian(a, jnp.concatenate([y * a, s]), g)


def advance(log_density: LogDensity, search: State) -> tuple[State, InverseHessian]:
    """One evaluation: a trial along H slope, accepted where log p rises enough (Armijo), else the
    next one is shorter.

    An accepted pair is learnt if its curvature is positive. Where no size goes up, what was learnt
    is forgotten, once; then the search is stuck.
    """
    rise = search.slope @ search.direction
    trial = search.u + search.size * search.direction
    value, slope = jax.value_and_grad(log_density)(trial)
    # below which a difference of values says nothing
    slack = 8 * jnp.finfo(trial.dtype).eps * jnp.abs(search.value)
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
    first = search.evaluations == 0
    moved = finite & (first | (value >= search.value + _ARMIJO * search.size * rise - slack))

    s = trial - search.u
    y = search.slope - slope
    curved = moved & ~first & (s @ y > 1e-10 * (y @ y))
    lost = ~moved & (search.size < _MIN_SIZE)
    fresh = ~jnp.any(search.steps != 0)
    diagonal = jnp.where(
        curved,
        _new_diagonal(search.diagonal, s, y),
        jnp.where(lost, jnp.ones_like(s), search.diagonal),
    )
    steps = jnp.where(
        curved, jnp.roll(search.steps, -1, 0).at[-1].set(s), jnp.where(lost, 0.0, search.steps)
    )
    changes = jnp.where(
        curved, jnp.roll(search.changes, -1, 0).at[-1].set(y), jnp.where(lost, 0.0, search.changes)
    )

    slope = jnp.where(moved, slope, search.slope)
    hessian = inverse_hessian(diagonal, steps, changes)
    direction = hessian.times(slope)
    full = jnp.where(
        jnp.any(steps != 0), 1.0, jnp.minimum(1.0, 1.0 / (jnp.linalg.norm(slope) + 1e-30))
    )
    new = State(
        u=jnp.where(moved, trial, search.u),
        value=jnp.where(moved, value, search.value),
        slope=slope,
        diagonal=diagonal,
        direction=direction,
        steps=steps,
        changes=changes,
        size=jnp.where(moved | lost, full, 0.5 * search.size).astype(trial.dtype),
        evaluations=search.evaluations + 1,
        moved=moved,
        gain=jnp.where(moved, 0.5 * slope @ direction, search.gain),
        stuck=lost & fresh,
    )
    return new, hessian


def _new_diagonal(a: Array, s: Array, y: Array) -> Array:
    """The diagonal after a pair (Gilbert & Lemarechal 1989; Zhang et al. 2022, alg. 3)."""
    yay = y @ (a * y)
    ys = jnp.maximum(y @ s, 1e-30)
    sas = s @ (s / a)
    new = 1.0 / (yay / (ys * a) + y**2 / ys - yay * (s / a) ** 2 / (ys * sas + 1e-30))
    return jnp.where(jnp.isfinite(new) & (new > 0), new, a)
