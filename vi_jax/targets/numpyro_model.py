"""Targets from NumPyro models."""

import functools
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy

from vi_jax.arguments import require_function
from vi_jax.targets._all_rows import first_trace, require_all_rows
from vi_jax.targets._subsets import PILOT, subset
from vi_jax.targets.local_numpyro import (
    is_subsampled,
    local_from_trace,
    plate_with_latents,
    site_log_prob,
)
from vi_jax.targets.target import Coordinates, Site, Target, TargetError
from vi_jax.targets.tracing import in_one_sentence
from vi_jax.types import Array, LogDensity

Trace = dict[str, dict[str, Any]]


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A target from a NumPyro model with its arguments: every latent site, constraints undone.

    Sites of one distribution and shape are evaluated together, so that the compile time of a model
    with many scalar sites stays flat. A plate with a `subsample_size` makes the target one of
    minibatches (NumPyro scales it by size / subsample_size).

    Args:
      model: a NumPyro model; observed sites by `obs=`.
      args, kwargs: what it is called with.

    Returns:
      A Target whose `constrain` gives {site: value}, deterministic sites included; where the plate
      with a `subsample_size` holds latent sites, a LocalTarget: for `vi.methods.local_advi`.

    Raises:
      TargetError: no latent site, a discrete one, or one with a dimension of 0; a plate of no rows,
        or a subsampled one whose data are those of a batch; Python that asks for a latent's value.
        Names the site, the plate or the line.
    """
    require_function(model, "from_numpyro", name="model")
    first: Trace = {}

    def sites_of(key: Array) -> dict[str, Array]:
        trace = first_trace(model, args, kwargs, key)
        first.update(trace)
        found.extend(_latents(trace))
        return {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}

    found: list[tuple[Site, bool]] = []
    with in_one_sentence("the model"):
        try:
            jax.eval_shape(sites_of, jax.random.key(0))
        except AssertionError as error:
            raise (_empty_plate(error) or error) from None
    if not found:
        raise TargetError(
            "the NumPyro model has no latent site: every sample site is observed; there is "
            "nothing to approximate."
        )
    plate = plate_with_latents(first)
    if plate is not None:
        local = local_from_trace(model, args, kwargs, first, plate, found)
        require_all_rows(model, args, kwargs, {plate: first[plate]["args"]})
        return local
    plates = {name: site["args"] for name, site in first.items() if is_subsampled(site)}
    if plates:
        require_all_rows(model, args, kwargs, plates)
    moving = any(dynamic for _, dynamic in found)
    sites = tuple(
        Site(site.name, dist.constraints.real, site.free_shape) if moving else site
        for site, _ in found
    )
    coordinates = Coordinates(sites)

    def density_on(rows: dict[str, Array]) -> LogDensity:
        """The log density with these rows of the subsampled plates."""

        def density(u: Array) -> Array:
            arrays, log_det = coordinates.transform(u)
            z = coordinates.split(arrays)
            seeded = handlers.seed(handlers.substitute(model, data=rows), jax.random.key(0))
            if moving:  # a support that depends on another latent: NumPyro undoes them in turn
                return -potential_energy(seeded, args, kwargs, z)
            trace = handlers.trace(handlers.substitute(seeded, data=z)).get_trace(*args, **kwargs)
            return _log_joint(trace, coordinates, arrays) + log_det

        return density

    def rows_of(key: Array, batches: int = 1) -> dict[str, Array]:
        return {
            name: subset(jax.random.fold_in(key, i), size, min(batches * batch_size, size))
            for i, (name, (size, batch_size)) in enumerate(plates.items())
        }

    def density_on_more(rows: dict[str, Array]) -> LogDensity:
        """That with more rows than the plates ask for, of which NumPyro would warn."""

        def density(u: Array) -> Array:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="subsample_size does not match")
                return density_on(rows)(u)

        return density

    def whole(u: Array) -> Array:
        return density_on_more({name: jnp.arange(size) for name, (size, _) in plates.items()})(u)

    def constrain(u: Array) -> dict[str, Array]:
        z, _ = coordinates.constrain(u)
        seeded = handlers.seed(
            handlers.substitute(model, data=rows_of(jax.random.key(0))), jax.random.key(0)
        )
        if moving:
            return constrain_fn(seeded, args, kwargs, z, return_deterministic=True)
        trace = handlers.trace(handlers.substitute(seeded, data=z)).get_trace(*args, **kwargs)
        return z | {
            name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"
        }

    def unconstrain(z: dict[str, Array]) -> Array:
        if moving:
            raise TargetError(
                "a support of this model depends on another latent; its values have no fixed way "
                "back to u."
            )
        return coordinates.unconstrain(z)

    def explain(u: Array) -> str:
        with numpyro.validation_enabled(False):  # what is not finite is to be named, not refused
            seen = handlers.substitute(model, data=constrain(u) | rows_of(jax.random.key(0)))
            return _not_finite(_trace(seen, args, kwargs, jax.random.key(0)))

    target = Target(whole, constrain, unconstrain, coordinates.names, explain=explain)
    if not plates:
        return target
    return target._replace(
        sampled=lambda key: density_on(rows_of(key)),
        pilot=lambda key: density_on_more(rows_of(key, batches=PILOT)),
    )


def _empty_plate(error: AssertionError) -> TargetError | None:
    """What to say where NumPyro's own assertion on a plate's size failed; None for any other."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    plate = frame.f_locals.get("self")
    if not isinstance(plate, numpyro.plate) or "size" not in frame.f_locals:
        return None
    return TargetError(
        f"the plate {plate.name!r} has size {frame.f_locals['size']}: it wants 1 row or more; "
        "look at the data's shape."
    )


def _trace(model: Callable[..., Any], args: Any, kwargs: Any, key: Array) -> Trace:
    return handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)


def _latents(trace: Trace) -> list[tuple[Site, bool]]:
    """The latent sites, and whether the support of each depends on another latent (they are then
    taken as real here).
    """
    latents = []
    for name, site in trace.items():
        if site["type"] == "param":
            raise TargetError(
                f"the model has a numpyro.param, {name!r}: a posterior has latents only; give it "
                "a prior or a value."
            )
        if site["type"] != "sample" or site["is_observed"]:
            continue
        support = site["fn"].support
        if getattr(support, "is_discrete", False) or getattr(site["fn"], "is_discrete", False):
            raise TargetError(
                f"the site {name!r} is discrete ({type(site['fn']).__name__}); variational "
                "inference here is over continuous "
                "latents. Sum it out (a mixture likelihood), or relax it."
            )
        moving = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(support))
        shape = tuple(site["value"].shape)
        if moving:
            free = tuple(dist.biject_to(support).inverse_shape(shape))
            latents.append((Site(name, dist.constraints.real, free), True))
        else:
            latents.append((Site(name, support, shape), False))
    return latents


def _log_joint(trace: Trace, coordinates: Coordinates, arrays: list[Array]) -> Array:
    """The sum of all sites' log densities; latents of one group and one distribution in one call.

    Stacking scalars that were split from one array costs XLA minutes at some hundred of them, so
    that values come from the arrays.
    """
    total: Array = jnp.zeros(())
    together: dict[Any, list[dict[str, Any]]] = {}
    for site in trace.values():
        if site["type"] == "sample":
            likeness = _likeness(site, coordinates)
            if likeness is None:
                total += site_log_prob(site).sum()
            else:
                together.setdefault(likeness, []).append(site)
    for sites in together.values():
        places = [coordinates.place(site["name"]) for site in sites]
        group = places[0][0]
        rows = [row for _, row in places]
        values = arrays[group]
        if rows != list(range(values.shape[0])):
            values = values[jnp.asarray(rows)]
        columns = zip(*(jax.tree.leaves(site["fn"]) for site in sites), strict=True)
        leaves, axes = (
            zip(*map(_column, columns), strict=True)
            if jax.tree.leaves(sites[0]["fn"])
            else ((), ())
        )
        one = functools.partial(_one_log_prob, jax.tree.structure(sites[0]["fn"]))
        total += jax.vmap(one, in_axes=(list(axes), 0))(list(leaves), values).sum()
    return total


def _one_log_prob(treedef: Any, leaves: list[Array], value: Array) -> Array:
    return treedef.unflatten(leaves).log_prob(value).sum()


def _column(values: Any) -> tuple[Any, int | None]:
    """One parameter of several sites as an array, and its axis for vmap: None where all share
    one.
    """
    if all(value is values[0] for value in values):
        return values[0], None
    if not any(isinstance(value, jax.core.Tracer) for value in values):
        return np.stack([np.asarray(value) for value in values]), 0
    return jnp.stack([jnp.asarray(value) for value in values]), 0


def _likeness(site: dict[str, Any], coordinates: Coordinates) -> Any:
    """What latents that are evaluated together share; None for a site that stands alone."""
    if site["is_observed"] or site.get("scale") is not None or site["intermediates"]:
        return None
    leaves, treedef = jax.tree.flatten(site["fn"])
    try:
        shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        likeness = (treedef, shapes, coordinates.place(site["name"])[0])
        hash(likeness)
    except TypeError:
        return None
    return likeness


def _not_finite(trace: Trace) -> str:
    """The first site whose log density is not finite, and its value."""
    for name, site in trace.items():
        if site["type"] == "sample":
            value = float(site_log_prob(site).sum())
            if not jnp.isfinite(value):
                what = "observed" if site["is_observed"] else "latent"
                return (
                    f"the {what} site {name!r} ({type(site['fn']).__name__}) has log density "
                    f"{value}"
                )
    return ""
