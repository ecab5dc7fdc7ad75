"""Targets with local latent variables from NumPyro models: a plate with a `subsample_size` that
holds latent sites.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers

from vi_jax.targets.local import LocalTarget
from vi_jax.targets.target import Coordinates, Site, TargetError
from vi_jax.targets.tracing import OF_TRACING, first_line
from vi_jax.types import Array

Trace = dict[str, dict[str, Any]]


def plate_with_latents(trace: Trace) -> str | None:
    """The name of the subsampled plate around latent sites, if there is one.

    Raises:
      TargetError: there are several subsampled plates, or a local site's support depends on its
        row.
    """
    subsampled = [name for name, site in trace.items() if is_subsampled(site)]
    local = [
        name
        for name in subsampled
        if any(_is_latent(site) and frame_of(site, name) for site in trace.values())
    ]
    if not local:
        return None
    if len(subsampled) > 1:
        raise TargetError(
            f"the plates {', '.join(subsampled)} are all subsampled, and {local[0]!r} holds "
            "latent sites: local latents need one subsampled plate; leave the subsample_size of "
            "the others out."
        )
    return local[0]


def local_from_trace(
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    trace: Trace,
    plate: str,
    sites: list[tuple[Site, bool]],
) -> LocalTarget:
    """The target of a model whose subsampled `plate` holds latent sites; of the trace only shapes
    are read.

    Raises:
      TargetError: a support that depends on another latent or on the row.
    """
    moving = [site.name for site, is_moving in sites if is_moving]
    if moving:
        raise TargetError(
            f"the support of {moving[0]!r} depends on another latent or on the row, which local "
            "latents do not allow."
        )
    axes = {
        site.name: _axis(trace[site.name], plate)
        for site, _ in sites
        if frame_of(trace[site.name], plate)
    }
    shared = [site for site, _ in sites if site.name not in axes]
    if not shared:
        raise TargetError(
            f"all latent sites are in the plate {plate!r}: its rows have no latent in common, "
            "and can be fitted apart."
        )
    own = [_one_row(site, axes[site.name]) for site, _ in sites if site.name in axes]
    num_rows, batch_size = trace[plate]["args"]
    posterior = LocalPosterior(
        model,
        args,
        kwargs,
        Coordinates(shared),
        Coordinates(own),
        axes,
        plate,
        num_rows,
        batch_size,
    )
    target = LocalTarget(
        posterior.log_global,
        posterior.log_rows,
        posterior.constrain,
        posterior.constrain_rows,
        lambda index: index,
        posterior.theta_sites.names,
        posterior.row_sites.names,
        num_rows,
        batch_size,
    )
    target.trace()
    return target


@dataclass(eq=False)
class LocalPosterior:
    """A model with its arguments, as functions of theta's u [D] and the rows' v [B, d]."""

    model: Callable[..., Any]
    args: Any
    kwargs: Any
    theta_sites: Coordinates
    row_sites: Coordinates  # of one row
    axes: dict[str, int]  # of the plate in the values of the rows' sites, from the right
    plate: str
    num_rows: int
    batch_size: int

    def log_global(self, u: Array) -> Array:
        """log p(theta), nats."""
        found, log_det, _ = self._run(u, *self._any_rows())
        terms = [
            site_log_prob(site).sum()
            for site in found.values()
            if site["type"] == "sample" and not frame_of(site, self.plate)
        ]
        return jnp.asarray(sum(terms)) + log_det

    def log_rows(self, u: Array, v: Array, index: Array) -> Array:
        """log p(x_n, z_n | theta) of rows index [B], nats."""
        found, _, total = self._run(u, v, index)
        scale = self.num_rows / self.batch_size
        for site in found.values():
            frame = frame_of(site, self.plate) if site["type"] == "sample" else None
            if frame:
                terms = jnp.moveaxis(site_log_prob(site, scale), frame.dim, 0)
                total = total + terms.reshape(self.batch_size, -1).sum(1)
        return total

    def constrain(self, u: Array) -> dict[str, Array]:
        """{site: value} of theta, deterministic sites that all rows share included."""
        found, _, _ = self._run(u, *self._any_rows())
        shared = {
            name: site["value"]
            for name, site in found.items()
            if site["type"] == "deterministic" and not frame_of(site, self.plate)
        }
        return self.theta_sites.constrain(u)[0] | shared

    def constrain_rows(self, u: Array, v: Array, index: Array) -> dict[str, Array]:
        """{site: values [B, ...]} of rows."""
        del u, index
        return jax.vmap(lambda v_n: self.row_sites.constrain(v_n)[0])(v)

    def _any_rows(self) -> tuple[Array, Array]:
        """Latents and numbers of some rows, where only theta's part is read."""
        v = jnp.zeros((self.batch_size, len(self.row_sites.names)))
        return v, jnp.arange(self.batch_size)

    def _run(self, u: Array, v: Array, index: Array) -> tuple[Trace, Array, Array]:
        """The trace at these latents and rows, and the log-determinants."""
        theta, log_det = self.theta_sites.constrain(u)
        z, log_det_rows = jax.vmap(self.row_sites.constrain)(v)
        z = {name: jnp.moveaxis(value, 0, self.axes[name]) for name, value in z.items()}
        values = {**theta, **z, self.plate: index}
        seeded = handlers.seed(handlers.substitute(self.model, data=values), jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(*self.args, **self.kwargs)
        return trace, log_det, log_det_rows


def is_subsampled(site: dict[str, Any]) -> bool:
    """Whether a site is a plate of which a run of the model sees a part."""
    return site["type"] == "plate" and site["args"][1] not in (None, site["args"][0])


def _is_latent(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def frame_of(site: dict[str, Any], plate: str) -> Any:
    """Where the plate's axis is in a site's batch shape; None outside of the plate."""
    return next((frame for frame in site.get("cond_indep_stack", ()) if frame.name == plate), None)


def _axis(site: dict[str, Any], plate: str) -> int:
    """The plate's axis in a site's value, from the right."""
    return frame_of(site, plate).dim - len(site["fn"].event_shape)


def _one_row(site: Site, axis: int) -> Site:
    if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(site.constraint)):
        raise TargetError(
            f"the support of {site.name!r}, {site.constraint}, is not the same for all rows."
        )
    shape = list(site.shape)
    del shape[axis]
    return Site(site.name, site.constraint, tuple(shape))


def site_log_prob(site: dict[str, Any], plate_scale: float = 1.0) -> Array:
    """[batch shape], in units of a plate's own N / B.

    Raises:
      TargetError: the value's shape does not go with the distribution's; names the site.
    """
    value = site["value"]
    intermediates = site["intermediates"]
    try:
        given = (value, intermediates) if intermediates else (value,)
        log_prob = site["fn"].log_prob(*given)
    except OF_TRACING:
        raise
    except (TypeError, ValueError) as error:
        raise TargetError(
            f"the {'observed' if site['is_observed'] else 'latent'} site {site['name']!r} cannot "
            "be evaluated: its value has shape "
            f"{jnp.shape(value)}, its distribution "
            f"{site['fn'].batch_shape + site['fn'].event_shape}. ({first_line(error)})"
        ) from error
    scale = site.get("scale")
    return log_prob if scale is None else scale / plate_scale * log_prob
