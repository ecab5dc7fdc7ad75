"""Distributions of a location and a scale: those of a model's sites that may be recentred."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.types import Array

LOCATION_SCALE = (dist.Normal, dist.StudentT, dist.Cauchy, dist.Laplace, dist.Logistic, dist.Gumbel)


def location_scale(fn: Any) -> tuple[Array, Array]:
    """Location and scale of a distribution of `LOCATION_SCALE`, or of a Gaussian random walk, which
    broadcast against its values.
    """
    base = _base(fn)
    if is_walk(fn):
        scale = jnp.asarray(base.scale)[..., None]
        return jnp.zeros_like(scale), scale
    return jnp.asarray(base.loc), jnp.asarray(base.scale)


def is_walk(fn: Any) -> bool:
    return isinstance(_base(fn), dist.GaussianRandomWalk)


def is_hierarchical(site: dict[str, Any]) -> bool:
    """Whether a scale may be a function of other latents, and has the shape of the values.

    Classes of one's own that derive from those that are known may have another density, and sites
    whose log density is scaled another Jacobian: they are left alone.
    """
    if site["type"] != "sample":
        return False
    base = _base(site["fn"])
    if type(base) not in (*LOCATION_SCALE, dist.GaussianRandomWalk) or site["scale"] is not None:
        return False
    # the trace is over: nothing but the kind and the shape of its tracers may be asked for
    parameters = (getattr(base, "loc", 0.0), base.scale)
    shape = jnp.shape(site["value"])
    batch = shape[:-1] if isinstance(base, dist.GaussianRandomWalk) else shape
    fits = jnp.broadcast_shapes(*map(jnp.shape, parameters), batch) == batch
    return isinstance(base.scale, jax.core.Tracer) and fits


def of_moved(fn: Any, share: Array) -> Any:
    """The distribution of v = (x - m) / s^(1 - c): of the family of x, location 0, scale s^c."""
    base = _base(fn)
    if isinstance(base, dist.GaussianRandomWalk):
        steps = jnp.broadcast_to(base.scale, fn.batch_shape) ** share[..., 0]
        return dist.GaussianRandomWalk(steps, base.num_steps, validate_args=False)
    others = {name: getattr(base, name) for name in base.arg_constraints}
    scale = jnp.broadcast_to(base.scale, fn.shape()) ** share
    moved = type(base)(**others | {"loc": 0.0, "scale": scale}, validate_args=False)
    return moved.to_event(fn.event_dim)


def standardised(site: dict[str, Any]) -> Array:
    loc, scale = location_scale(site["fn"])
    r = (site["value"] - loc) / scale
    if is_walk(site["fn"]):
        r = jnp.diff(r, axis=-1, prepend=jnp.zeros_like(r[..., :1]))
    return r


def _base(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn
