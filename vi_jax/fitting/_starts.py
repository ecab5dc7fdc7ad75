"""The start of a method, the best of a few points of a cube, and errors of a log density there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import methods
from vi_jax.arguments import describe
from vi_jax.fitting._compile import Program
from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Target, TargetError
from vi_jax.targets.tracing import OF_TRACING, first_line, in_one_sentence
from vi_jax.types import Array

NUM_POINTS = 10  # points of which a start is the best
NUM_CANDIDATES = 2 * NUM_POINTS  # gradients that this takes: at each point and at its neighbour
NEIGHBOUR = 1e-3  # how far that lies, in each coordinate
MIN_TORN = 2  # points at which rounding decides whether the density is finite
START_RADIUS = 2.0  # of the cube they come from, in unconstrained coordinates


def require(target: Target, num_starts: int, start: Array | None) -> None:
    """Raises for arguments that do not go together, and for a density without a value or a
    gradient.
    """
    if start is not None and not hasattr(start, "dtype"):
        raise TypeError(
            f"start has to be an array of unconstrained numbers, u [D]; got {describe(start)}."
        )
    if start is not None and np.shape(start) not in ((target.size,), (num_starts, target.size)):
        raise ValueError(
            f"start expects shape ({target.size},) or ({num_starts}, {target.size}), "
            f"unconstrained; got {np.shape(start)}."
        )
    u = jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    value = _shape(target.log_density, u, "evaluated")
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TargetError(
            "the log density has to be one floating-point number, nats; got shape "
            f"{value.shape} of {value.dtype}."
        )
    _shape(jax.grad(target.log_density), u, "differentiated")


def require_target(target: Any) -> None:
    """Raises TypeError for what is no target: a density or a model has to be made one."""
    if isinstance(target, Target | LocalTarget):
        return
    hint = (
        "vi.targets.from_log_density(log_density, example) or from_numpyro(model, *data) makes one"
    )
    raise TypeError(f"fit expects (key, target); got {describe(target)} as the target: {hint}.")


def require_method(method: Any) -> None:
    """Raises TypeError for a method by its name, or for its factory, not called."""
    if method is None or hasattr(method, "step"):
        return
    name = method if isinstance(method, str) else getattr(method, "__name__", "")
    known = name if name in methods.__all__ else "advi"
    raise TypeError(
        f"method has to be what a call of a method's factory gives, e.g. vi.methods.{known}(); got "
        f"{describe(method)}."
    )


def _shape(f: Callable[[Array], Array], u: Any, how: str) -> Any:
    """Of f(u), or a TargetError that says what cannot be done, and why."""
    with in_one_sentence("the log density"):
        try:
            return jax.eval_shape(f, u)
        except (TargetError, *OF_TRACING):
            raise
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TargetError(f"the log density cannot be {how}: {first_line(error)}") from error


def choice(
    key: Array, target: Target, num_starts: int, start: Array | None, options: dict[str, Any]
) -> Program:
    """The program of `pick` for a run's key: also the keys of the rest of the run."""

    def choose(key: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        key_start, key_init, key_run, key_weigh = jax.random.split(key, 4)
        return pick(key_start, target, num_starts, start), (key_init, key_run, key_weigh)

    return Program(options, choose, (key,))


def checked(
    target: Target, chosen: tuple[Any, tuple[Array, Array, Array]]
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Starts u [R, D] at which the log density can be maximised, and the keys of begin, advance and
    judge.

    Raises:
      TargetError: it is not finite there, nor its gradient, or it is flat.
    """
    picked, keys = chosen
    u, values, slopes, flat, torn = jax.tree.map(np.asarray, picked)
    check(target, u, values, slopes, flat=bool(flat))
    _require_whole(target, torn)
    return picked[0], keys


def evaluations(num_starts: int, start: Array | None) -> int:
    """Gradients that the choice took."""
    return num_starts * (NUM_CANDIDATES if start is None else 1)


def pick(
    key: Array, target: Target, num_starts: int, start: Array | None
) -> tuple[Array, Array, Array, Array, Array]:
    """u [R, D], values [R], gradients [R, D], whether the gradients at several points are all
    exactly 0, and points [P, D] at which the density is not finite: nan but for those, and of them
    all [0], or those [1] at whose neighbour it is finite.

    The points are those given; else of a few of a cube each, the one of highest density (the
    origin is among the first's).
    """
    size = target.size
    num = 1 if start is not None else NUM_POINTS
    shape = (num_starts, num, size)
    if start is None:
        points = (
            jax.random.uniform(key, shape, minval=-START_RADIUS, maxval=START_RADIUS)
            .at[0, 0]
            .set(0.0)
        )
        signs = jnp.where(jnp.arange(size) % 2 == 0, 1.0, -1.0).astype(points.dtype)
        looked_at = jnp.stack([points, points + NEIGHBOUR * signs])
    else:
        points = jnp.broadcast_to(jnp.asarray(start), (num_starts, size))[:, None]
        looked_at = points[None]
    values, slopes = jax.lax.map(
        jax.value_and_grad(target.log_density), looked_at.reshape(-1, size), batch_size=num
    )
    values = values.reshape(looked_at.shape[:3])
    finite = jnp.isfinite(values)
    bad = jnp.stack([~finite, ~finite & jnp.any(finite, axis=0)])
    torn = jnp.where(bad[..., None], looked_at, jnp.nan).reshape(2, -1, size)
    slopes = slopes.reshape(looked_at.shape)[0]
    good = finite[0] & jnp.all(jnp.isfinite(slopes), axis=-1)
    best = jnp.argmax(jnp.where(good, values[0], -jnp.inf), axis=1)
    rows = jnp.arange(num_starts)
    flat = jnp.all(slopes == 0) & (num > 1)  # at one point it may be the mode
    return points[rows, best], values[0, rows, best], slopes[rows, best], flat, torn


def _require_whole(target: Target, points: np.ndarray) -> None:
    """Raises where rounding decides at several points whether the log density is finite, or where
    it is not for a covariance that is singular.
    """
    bad, torn = (part[np.isfinite(part).all(axis=1)] for part in points)
    if len(bad) < MIN_TORN:
        return
    site = ""
    if target.explain is not None:
        worst = torn if len(torn) else bad
        site = target.explain(jnp.asarray(worst[0]))
    if len(torn) < MIN_TORN and "singular" not in site:
        return
    beside = f", and finite {NEIGHBOUR:g} beside {len(torn)} of them" if len(torn) else ""
    raise TargetError(
        f"the log density is not finite at {len(bad)} of {points.shape[1]} points where it could "
        f"start{beside}{f': {site}' if site else ''}. Rounding decides: look for the Cholesky of a "
        "covariance that is singular, and add a jitter to its diagonal "
        "(covariance + 1e-6 * jnp.eye(n)), or remove rows that are repeated."
    )


def check(
    target: Target, u: np.ndarray, values: np.ndarray, slopes: np.ndarray, *, flat: bool
) -> None:
    """Raises where no method could start, and says what to look for."""
    for point, value, slope in zip(u, values, slopes, strict=True):
        if not np.isfinite(value):
            site = target.explain(jnp.asarray(point)) if target.explain else ""
            raise TargetError(
                f"the log density is {value} at the start{f': {site}' if site else ''}. Check "
                "the data and the constraints, "
                "or give a start= where it is finite."
            )
        if not np.all(np.isfinite(slope)):
            bad = [name for name, s in zip(target.names, slope, strict=True) if not np.isfinite(s)]
            raise TargetError(
                "the gradient of the log density is not finite at the start, in "
                f"{', '.join(bad[:5])}: look for a sqrt, log or "
                "norm at its edge, and for jnp.where with a branch that is not finite."
            )
    if flat:
        raise TargetError(
            "the gradient of the log density is exactly 0 at the start, in all coordinates: it "
            "is flat, rounded, or detached "
            "(stop_gradient, an integer cast); give one that is differentiable."
        )
