"""Preconditioning in the guide's own units: gradients and updates of a Gaussian's parameters as if
it were the standard normal.

With z = m + L eps, a guide next to this one is z = m + L (a + D eps), D lower triangular near I:
the gradient in a is L' g_m, that in D the lower triangle of L' G_L. An optimiser that moves (a, D)
takes the same steps whatever the units of z and, at full rank, whatever its correlations.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from vi_jax.gaussian import fill_tril
from vi_jax.types import Array, Params, select

DIAGONAL = {"loc", "log_scale"}
FULL = {"loc", "log_diag", "lower"}
_ALONG = ("loc", "slope")  # move as z does: [D] and [D, M]


def inward(params: Params, slope: Params) -> Params:
    """Gradients in the guide's units, of gradients in the parameters; other families keep
    theirs.
    """
    form = kind(params)
    if form is None:
        return slope
    if form is DIAGONAL:
        scale = jnp.exp(params["log_scale"])
        return {**slope, **{name: _rows(scale, slope[name]) for name in _ALONG if name in slope}}
    tril = fill_tril(params["log_diag"], params["lower"])
    # d/d log L_jj = L_jj d/d L_jj
    gradient = fill_tril(jnp.zeros_like(params["log_diag"]), slope["lower"])
    gradient = (
        gradient
        - jnp.diag(jnp.diag(gradient))
        + jnp.diag(slope["log_diag"] / jnp.exp(params["log_diag"]))
    )
    inner = tril.T @ gradient
    moved = {name: tril.T @ slope[name] for name in _ALONG if name in slope}
    return {**slope, **moved, "log_diag": jnp.diag(inner), "lower": inner[below(tril)]}


def outward(params: Params, update: Params) -> Params:
    """The parameters moved by an update in the guide's units."""
    form = kind(params)
    if form is None:
        return jax.tree.map(lambda p, d: (p + d).astype(p.dtype), params, update)
    if form is DIAGONAL:
        scale = jnp.exp(params["log_scale"])
        along = {
            name: params[name] + _rows(scale, update[name]) for name in _ALONG if name in params
        }
        return {**along, "log_scale": params["log_scale"] + update["log_scale"]}
    tril = fill_tril(params["log_diag"], params["lower"])
    new = tril @ fill_tril(update["log_diag"], update["lower"])  # D, its diagonal e^update
    along = {name: params[name] + tril @ update[name] for name in _ALONG if name in params}
    return {**along, "log_diag": params["log_diag"] + update["log_diag"], "lower": new[below(tril)]}


def moved(
    rule: optax.GradientTransformation,
    params: Params,
    optimizer_state: Any,
    value: Array,
    slope: Params,
    rate: Array,
) -> tuple[Params, Any]:
    """Parameters and optimiser after an update in the guide's units, times `rate`; as they were
    where a number is not finite.
    """
    flat, _ = ravel_pytree(slope)
    good = jnp.isfinite(value) & jnp.all(jnp.isfinite(flat))
    updates, new_state = rule.update(inward(params, slope), optimizer_state, params)
    new = outward(params, jax.tree.map(lambda d: rate * d, updates))
    return select(good, (new, new_state), (params, optimizer_state))


def at(params: Params, start: Array) -> Params:
    """The parameters with their location at `start` [D], where they have one."""
    if isinstance(params, dict) and getattr(params.get("loc"), "shape", None) == start.shape:
        return {**params, "loc": start.astype(params["loc"].dtype)}
    return params


def kind(params: Params) -> set[str] | None:
    """The names of a Gaussian's parameters, diagonal or full; None for other families."""
    if not isinstance(params, dict) or isinstance(params.get("lower"), tuple):  # of blocks
        return None
    names = set(params) - {"slope"}
    return next((form for form in (DIAGONAL, FULL) if names == form), None)


def _rows(scale: Array, x: Array) -> Array:
    return scale.reshape(-1, *[1] * (x.ndim - 1)) * x


def below(matrix: Array) -> Any:
    """Indices of the strict lower triangle, by rows."""
    return np.tril_indices(matrix.shape[0], -1)
