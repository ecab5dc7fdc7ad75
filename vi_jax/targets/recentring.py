"""Location-scale sites in coordinates between centred and non-centred, with the model's own values.

A site x ~ Normal(m(z), s(z)) whose scale is a function of other latents makes a funnel where the
data say little of x: no Gaussian is near it. The same posterior over v with

    x = m(z) + s(z)^(1 - c) v,    log p(v, z) = log p(x, z) + (1 - c) sum log s(z),

is nearly Gaussian for the c that fits: 1 leaves x as it is written but for its location (centred),
0 is the non-centred form, and the best lies between (Papaspiliopoulos et al. 2007; Gorinova et al.
2020). The model is not rewritten: its sites keep their names and values.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro import handlers

from vi_jax.targets._posterior import Posterior, log_joint
from vi_jax.targets.local_numpyro import site_log_prob
from vi_jax.targets.location_scale import (
    is_hierarchical,
    is_walk,
    location_scale,
    of_moved,
    standardised,
)
from vi_jax.targets.target import Target
from vi_jax.types import Array

Trace = dict[str, dict[str, Any]]
NUM_SAMPLES = 16  # of a guide, by which the coordinates are chosen


class Recentring(NamedTuple):
    """The location-scale sites of a posterior, and what their coordinates may become."""

    posterior: Posterior
    names: tuple[str, ...]  # of the sites whose scale may be a function of other latents
    walks: frozenset[str]  # those of them that are Gaussian random walks

    def at(self, shares: Mapping[str, Any], target: Target) -> Target:
        """A target of the same posterior over other coordinates, with the sites of the model.

        Args:
          shares: {site: c, of the site's shape or a number}, from 0 (non-centred) to 1, one for all
            steps of a walk; a site that is left out stays as it is written.
          target: the one as the model is written.
        """
        shapes = {site.name: site.shape for site in self.posterior.coordinates.sites}
        whole = {name: jnp.broadcast_to(c, shapes[name]) for name, c in shares.items()}
        moved = Moved(self.posterior, whole)
        return target._replace(
            log_density=moved.log_density,
            constrain=moved.constrain,
            unconstrain=moved.unconstrain,
            explain=lambda v: self.posterior.explain(moved.to_model(v)),
            latents=None,  # constraints alone do not lead from u to the sites
            recentring=None,
            centring=moved,
        )

    def shares(self, guide: Any, key: Array) -> dict[str, Array]:
        """{site: c [*shape]}: how much of what is known of each number comes from elsewhere than
        from its own location and scale; without the sites whose scale is the same at all samples of
        the guide, which are no funnels.

        c = t / (t + p): p the curvature of the sites' own densities, t that of all the others, at
        each number with the rest held; the median over samples of the guide. For a normal site of
        variance s^2 and normal data of precision t this is t s^2 / (1 + t s^2), the best there is
        (Papaspiliopoulos et al. 2007, section 3).

        Args:
          guide: over the u of the model as it is written.
          key: of the guide's samples.
        """
        u = guide.sample(key, (NUM_SAMPLES,))
        found, scales = jax.jit(lambda u: jax.lax.map(self._shares_at, u))(u)
        vary = [name for name in self.names if bool(jnp.any(jnp.ptp(scales[name], 0) > 0))]
        medians = {name: jnp.median(found[name], 0) for name in vary}
        walks = {name: medians[name].mean(-1, keepdims=True) for name in self.walks & set(vary)}
        return medians | walks

    def _shares_at(self, u: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """{site: c} at u, and {site: scale}."""
        z, _ = self.posterior.coordinates.constrain(u)
        own, restore = ravel_pytree({name: z[name] for name in self.names})

        def trace_of(own: Array) -> Trace:
            return _run(self.posterior, z | restore(own))

        def residuals(own: Array) -> Array:
            trace = trace_of(own)
            return ravel_pytree([standardised(trace[name]) for name in self.names])[0]

        def others(own: Array) -> Array:
            sites = [site for name, site in trace_of(own).items() if name not in self.names]
            terms = [site_log_prob(site).sum() for site in sites if site["type"] == "sample"]
            return sum(terms, jnp.zeros(()))

        by_sites = jnp.sum(jnp.square(jax.jacfwd(residuals)(own)), 0)
        by_others = jnp.maximum(-jnp.diagonal(jax.hessian(others)(own)), 0.0)
        trace = trace_of(own)
        scales = {name: location_scale(trace[name]["fn"])[1] for name in self.names}
        return restore(by_others / (by_others + by_sites)), scales


class Moved:
    """A posterior with some sites in other coordinates v [D], as functions of them."""

    def __init__(self, posterior: Posterior, shares: dict[str, Array]) -> None:
        self.posterior = posterior
        self.shares = shares

    def log_density(self, v: Array) -> Array:
        """log p(x, T(v)) + log |det dT/dv|."""
        coordinates = self.posterior.coordinates
        arrays, log_det = coordinates.transform(v)
        z = coordinates.split(arrays)
        trace = self._run(z)
        for name, share in self.shares.items():
            # as densities of v: x less its location would lose the digits of v
            site = trace[name]
            trace[name] = {**site, "fn": of_moved(site["fn"], share), "value": z[name]}
        return log_joint(trace, coordinates, arrays) + log_det

    def constrain(self, v: Array) -> dict[str, Array]:
        """{site: value} of v, deterministic sites included."""
        z, _ = self.posterior.coordinates.constrain(v)
        trace = self._run(z)
        return {name: trace[name]["value"] for name in z} | {
            name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"
        }

    def unconstrain(self, z: dict[str, Any]) -> Array:
        """v of {site: value}."""
        return self._placed({name: jnp.asarray(z[name]) for name in self._names()})[0]

    def to_model(self, v: Array) -> Array:
        """u [D] of the model as it is written, of v."""
        z, _ = self.posterior.coordinates.constrain(v)
        trace = self._run(z)
        return self.posterior.coordinates.unconstrain({name: trace[name]["value"] for name in z})

    def from_model(self, u: Array) -> tuple[Array, Array]:
        """v of u [D], and log |det dv/du|."""
        z, _ = self.posterior.coordinates.constrain(u)
        return self._placed(z)

    def _placed(self, z: dict[str, Array]) -> tuple[Array, Array]:
        trace = _run(self.posterior, z)
        moved = {}
        log_det: Array = jnp.zeros(())
        for name, share in self.shares.items():
            loc, scale = location_scale(trace[name]["fn"])
            moved[name] = (z[name] - loc) / scale ** (1.0 - share)
            log_det -= jnp.sum((1.0 - share) * jnp.log(scale))
        return self.posterior.coordinates.unconstrain({**z, **moved}), log_det

    def _names(self) -> Iterable[str]:
        return (site.name for site in self.posterior.coordinates.sites)

    def _run(self, z: dict[str, Array]) -> Trace:
        """The trace with each site at its value. Sites are moved in the order of the model, so that
        a location may be a moved site itself.
        """

        def value_of(site: dict[str, Any]) -> Array | None:
            share = self.shares.get(site["name"])
            if share is None:
                return z.get(site["name"])
            loc, scale = location_scale(site["fn"])
            return loc + scale ** (1.0 - share) * z[site["name"]]

        return _run(self.posterior, value_of)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RecentredGuide:
    """A guide over other coordinates, as one over the u [D] of the model as it is written."""

    guide: Any  # over v [D]
    shares: dict[str, Array]  # {site: c [*shape]}
    posterior: Posterior = field(metadata={"static": True}, repr=False)

    @property
    def moved(self) -> Moved:
        """The way between u and v.

        Raises:
          ValueError: it was loaded from a folder without its model.
        """
        if not isinstance(self.posterior, Posterior):
            raise ValueError(
                "this guide goes through its model, which a folder does not hold: "
                "vi.load_result(folder, target)."
            )
        return Moved(self.posterior, self.shares)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples u [*sample_shape, D]."""
        v = self.guide.sample(key, sample_shape)
        u = jax.lax.map(self.moved.to_model, v.reshape(-1, v.shape[-1]), batch_size=1000)
        return u.reshape(v.shape)

    def log_prob(self, u: Array) -> Array:
        """log q(u), nats, [...] for u [..., D]."""
        v, log_det = jax.vmap(self.moved.from_model)(u.reshape(-1, u.shape[-1]))
        log_q: Array = self.guide.log_prob(v) + log_det
        return log_q.reshape(u.shape[:-1])


def recentring(posterior: Posterior, trace: Trace) -> Recentring | None:
    """The location-scale sites of a posterior over all its rows; None where it has none.

    Args:
      trace: of the model, with its latents abstract: what depends on them is a tracer.
    """
    is_plain = not (posterior.plates or posterior.is_moving or posterior.summed is not None)
    if not is_plain or any(site.get("_control_flow_done") for site in trace.values()):
        return None
    latents = {site.name for site in posterior.coordinates.sites}
    names = tuple(name for name in trace if name in latents and is_hierarchical(trace[name]))
    walks = frozenset(name for name in names if is_walk(trace[name]["fn"]))
    return Recentring(posterior, names, walks) if names else None


def describe(shares: Mapping[str, Any]) -> str:
    """Centred sites in words."""
    parts = []
    for name, share in shares.items():
        moved = 1.0 - float(jnp.mean(share))
        how = "non-centred" if moved > 0.99 else f"{moved:.0%} non-centred"
        parts.append(f"{name} {how}")
    return ", ".join(parts)


def _run(posterior: Posterior, values: dict[str, Array] | Callable[..., Any]) -> Trace:
    """A trace of the model with its latents at values, given by site or by a function of it."""
    seeded = handlers.seed(posterior.model, jax.random.key(0))
    if callable(values):
        placed = handlers.substitute(seeded, substitute_fn=values)
    else:
        placed = handlers.substitute(seeded, data=values)
    # where a guide stands in another model, that one is to see nothing of this one
    with numpyro.validation_enabled(False), handlers.block():
        return handlers.trace(placed).get_trace(*posterior.args, **posterior.kwargs)
