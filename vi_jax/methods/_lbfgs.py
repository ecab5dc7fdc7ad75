"""Steps of L-BFGS up a log density, with the inverse Hessian that they learn: a diagonal and a few
factors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vi_jax import linalg
from vi_jax.types import Array, LogDensity

_ARMIJO = 1e-4
_SMALLEST = 1e-9


class Climb(NamedTuple):
    """Where the ascent is. S and Y hold the last J steps and changes of the gradient, the newest
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
    gain: Array  # nats that the next step is expected to win: half of slope' H slope
    stuck: Array  # bool: no way upwards was found


def start(u: Array, *, memory: int) -> Climb:
    """At u, with nothing evaluated: the first trial is u itself."""
    empty = jnp.zeros((memory, u.size), u.dtype)
    infinite = jnp.full((), jnp.inf, u.dtype)
    no = jnp.bool_(False)
    nowhere = jnp.zeros_like(u)
    size = jnp.zeros((), u.dtype)
    return Climb(
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


def advance(log_density: LogDensity, climb: Climb) -> tuple[Climb, InverseHessian]:
    """One evaluation: a trial along H slope, accepted where log p rises enough (Armijo), else the
    next one is shorter.

    An accepted pair is learnt if its curvature is positive. Where no size goes up, what was learnt
    is forgotten, once; then the ascent is stuck.
    """
    rise = climb.slope @ climb.direction
    trial = climb.u + climb.size * climb.direction
    value, slope = jax.value_and_grad(log_density)(trial)
    # below which a difference of values says nothing
    slack = 8 * jnp.finfo(trial.dtype).eps * jnp.abs(climb.value)
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
    first = climb.evaluations == 0
    moved = finite & (first | (value >= climb.value + _ARMIJO * climb.size * rise - slack))

    s = trial - climb.u
    y = climb.slope - slope
    curved = moved & ~first & (s @ y > 1e-10 * (y @ y))
    lost = ~moved & (climb.size < _SMALLEST)
    fresh = ~jnp.any(climb.steps != 0)
    diagonal = jnp.where(
        curved,
        _new_diagonal(climb.diagonal, s, y),
        jnp.where(lost, jnp.ones_like(s), climb.diagonal),
    )
    steps = jnp.where(
        curved, jnp.roll(climb.steps, -1, 0).at[-1].set(s), jnp.where(lost, 0.0, climb.steps)
    )
    changes = jnp.where(
        curved, jnp.roll(climb.changes, -1, 0).at[-1].set(y), jnp.where(lost, 0.0, climb.changes)
    )

    slope = jnp.where(moved, slope, climb.slope)
    hessian = inverse_hessian(diagonal, steps, changes)
    direction = hessian.times(slope)
    full = jnp.where(
        jnp.any(steps != 0), 1.0, jnp.minimum(1.0, 1.0 / (jnp.linalg.norm(slope) + 1e-30))
    )
    new = Climb(
        u=jnp.where(moved, trial, climb.u),
        value=jnp.where(moved, value, climb.value),
        slope=slope,
        diagonal=diagonal,
        direction=direction,
        steps=steps,
        changes=changes,
        size=jnp.where(moved | lost, full, 0.5 * climb.size).astype(trial.dtype),
        evaluations=climb.evaluations + 1,
        moved=moved,
        gain=jnp.where(moved, 0.5 * slope @ direction, climb.gain),
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
