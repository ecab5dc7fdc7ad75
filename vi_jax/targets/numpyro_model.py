"""A target from a NumPyro model, `from_numpyro`."""

import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpyro
import numpyro.distributions as dist

from vi_jax.arguments import require_function
from vi_jax.targets._all_rows import first_trace, require_all_rows
from vi_jax.targets._posterior import Posterior
from vi_jax.targets.enumeration import Enumerated, enumerated, is_discrete_latent, values_of
from vi_jax.targets.latents import Latents
from vi_jax.targets.local_numpyro import (
    is_subsampled,
    local_from_trace,
    plate_with_latents,
)
from vi_jax.targets.observed import Observed
from vi_jax.targets.recentring import recentring
from vi_jax.targets.target import Coordinates, Site, Target, TargetError
from vi_jax.targets.tracing import in_one_sentence
from vi_jax.types import Array

Trace = dict[str, dict[str, Any]]


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A target from a NumPyro model with its arguments: every latent site, constraints undone.

    Sites of one distribution and shape are evaluated together, so that the compile time of a model
    with many scalar sites stays flat. A plate with a `subsample_size` makes the target one of
    minibatches (NumPyro scales it by size / subsample_size).

    Discrete latents that are marked, `infer={"enumerate": "parallel"}`, are summed out by NumPyro's
    enumeration (which needs funsor); `Result.discrete()` gives their posterior probabilities.

    Args:
      model: a NumPyro model; observed sites by `obs=`.
      args, kwargs: what it is called with.

    Returns:
      A Target whose `constrain` gives {site: value}, deterministic sites included, but for models
        with summed sites, on which they may depend; where the plate
      with a `subsample_size` holds latent sites, a LocalTarget: for `vi.methods.local_advi`.

    Raises:
      TargetError: no latent site, a discrete one that is not marked, or one with a dimension of 0;
        a plate of no rows, or a subsampled one whose data are those of a batch; Python that needs a
        latent's value. Names the site, the plate or the line.
    """
    require_function(model, "from_numpyro", name="model")
    trace, latents = _first_run(model, args, kwargs)
    summed = enumerated(model, args, kwargs, trace)
    if summed is not None:
        _require_plain(summed, trace, latents)
    plate = plate_with_latents(trace)
    if plate is not None:
        local = local_from_trace(model, args, kwargs, trace, plate, latents)
        require_all_rows(model, args, kwargs, {plate: trace[plate]["args"]})
        return local
    plates = {name: site["args"] for name, site in trace.items() if is_subsampled(site)}
    if plates:
        require_all_rows(model, args, kwargs, plates)
    is_moving = any(moving for _, moving in latents)
    sites = [site for site, _ in latents]
    if is_moving:
        sites = [Site(site.name, dist.constraints.real, site.free_shape) for site in sites]
    posterior = Posterior(model, args, kwargs, Coordinates(sites), plates, is_moving, summed)
    target = Target(
        posterior.log_density,
        posterior.constrain,
        posterior.unconstrain,
        posterior.coordinates.names,
        explain=posterior.explain,
        latents=_latents_of(trace, sites, is_moving),
    )
    if summed is not None:
        target = target._replace(discrete=posterior.discrete)
    if not plates:
        return target._replace(
            observed=Observed(model, args, kwargs, summed is not None),
            recentring=recentring(posterior, trace),
        )
    return target._replace(sampled=posterior.sampled, sampled_larger=posterior.sampled_larger)


def _require_plain(summed: Enumerated, trace: Trace, latents: list[tuple[Site, bool]]) -> None:
    """Raises where sites that are summed out meet minibatches or supports that move."""
    name = next(iter(summed.supports))
    if any(is_subsampled(site) for site in trace.values()):
        raise TargetError(
            f"the site {name!r} is summed out, which needs all rows: leave the subsample_size of "
            "the plates out, or sum it out by hand."
        )
    moving = [site.name for site, is_moving in latents if is_moving]
    if moving:
        raise TargetError(
            f"the site {name!r} is summed out, and the support of {moving[0]!r} depends on another "
            "latent: not both in one model; sum it out by hand."
        )


def _latents_of(trace: Trace, sites: list[Site], is_moving: bool) -> Latents | None:
    if is_moving:
        return None
    is_summed = any(is_discrete_latent(site) for site in trace.values())
    is_all = is_summed or all(site["type"] != "deterministic" for site in trace.values())
    return Latents(tuple(sites), {site.name: site.name for site in sites}, is_all)


def _first_run(
    model: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[Trace, list[tuple[Site, bool]]]:
    """A trace of the model, and its latent sites as `_latents` gives them.

    Raises:
      TargetError: as for `from_numpyro`.
    """
    trace: Trace = {}
    latents: list[tuple[Site, bool]] = []

    def run(key: Array) -> dict[str, Array]:
        found = first_trace(model, args, kwargs, key)
        trace.update(found)
        latents.extend(_latents(found))
        return {name: site["value"] for name, site in found.items() if site["type"] == "sample"}

    with in_one_sentence("the model"):
        try:
            jax.eval_shape(run, jax.random.key(0))
        except AssertionError as error:
            raise (_empty_plate(error) or error) from None
    if not latents:
        raise TargetError(
            "the NumPyro model has no latent site: every sample site is observed, or discrete; "
            "there is nothing to approximate."
        )
    return trace, latents


def _empty_plate(error: AssertionError) -> TargetError | None:
    """What to say where NumPyro's own assertion on a plate's size failed; None for any other."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    plate = frame.f_locals.get("self")
    if not isinstance(plate, numpyro.plate) or "size" not in frame.f_locals:
        return None
    return TargetError(
        f"the plate {plate.name!r} has size {frame.f_locals['size']}: it expects 1 row or more; "
        "look at the data's shape."
    )


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
        if is_discrete_latent(site):
            values_of(name, site)  # raises where it cannot be summed out
            continue
        support = site["fn"].support
        moving = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(support))
        shape = tuple(site["value"].shape)
        if moving:
            free = tuple(dist.biject_to(support).inverse_shape(shape))
            latents.append((Site(name, dist.constraints.real, free), True))
        else:
            latents.append((Site(name, support, shape), False))
    return latents
