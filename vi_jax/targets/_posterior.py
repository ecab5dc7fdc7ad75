"""The log density of a NumPyro model over unconstrained coordinates, whole or on minibatches."""

import functools
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

from vi_jax import linalg
from vi_jax.targets._subsets import START_BATCHES, subset
from vi_jax.targets.enumeration import Enumerated
from vi_jax.targets.local_numpyro import site_log_prob
from vi_jax.targets.target import Coordinates, TargetError
from vi_jax.types import Array, LogDensity

Trace = dict[str, dict[str, Any]]


class Posterior:
    """A model with its arguments, as functions of u [D].

    Args:
      plates: {name: (rows, rows of a batch)} of the subsampled ones.
      is_moving: whether a support depends on another latent; NumPyro then undoes the constraints in
        turn.
      summed: the model with its discrete sites summed out, if it has some.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: Any,
        kwargs: Any,
        coordinates: Coordinates,
        plates: dict[str, tuple[int, int]],
        is_moving: bool,
        summed: Enumerated | None = None,
    ) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.coordinates = coordinates
        self.plates = plates
        self.is_moving = is_moving
        self.summed = summed

    def log_density(self, u: Array) -> Array:
        """log p(x, T(u)) + log |det dT/du| with all rows, nats."""
        rows = {name: jnp.arange(size) for name, (size, _) in self.plates.items()}
        return self._on_more(rows)(u)

    def sampled(self, key: Array) -> LogDensity:
        """The log density on a minibatch, unbiased."""
        return self._on(self._rows(key))

    def sampled_larger(self, key: Array) -> LogDensity:
        """As `sampled`, on START_BATCHES times the rows."""
        return self._on_more(self._rows(key, batches=START_BATCHES))

    def constrain(self, u: Array) -> dict[str, Array]:
        """{site: value} of u, deterministic sites included."""
        z, _ = self.coordinates.constrain(u)
        if self.summed is not None:
            return z
        seeded = self._seeded(self._rows(jax.random.key(0)))
        if self.is_moving:
            return constrain_fn(seeded, self.args, self.kwargs, z, return_deterministic=True)
        trace = self._trace(handlers.substitute(seeded, data=z))
        return z | {
            name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"
        }

    def discrete(self, u: Array) -> dict[str, Array]:
        """{discrete site: probabilities of its values [*shape, K]} given u and the data."""
        assert self.summed is not None
        z, _ = self.coordinates.constrain(u)
        with numpyro.validation_enabled(False):
            return self.summed.probabilities(z)

    def unconstrain(self, z: dict[str, Array]) -> Array:
        """u of {site: value}.

        Raises:
          TargetError: a support depends on another latent.
        """
        if self.is_moving:
            raise TargetError(
                "a support of this model depends on another latent; its values have no fixed way "
                "back to u."
            )
        return self.coordinates.unconstrain(z)

    def explain(self, u: Array) -> str:
        """Which site is not finite at u; empty if none."""
        kinds: dict[str, str] = {}

        def evaluate(u: Array) -> dict[str, tuple[Array, Array]]:
            values = self.constrain(u) | self._rows(jax.random.key(0))
            seen = handlers.substitute(self.model, data=values)
            trace = self._trace(handlers.seed(seen, jax.random.key(0)))
            sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
            for name, site in sites.items():
                what = "observed" if site["is_observed"] else "latent"
                kinds[name] = f"the {what} site {name!r} ({type(site['fn']).__name__})"
            return {
                name: (site_log_prob(site).sum(), _covariance(site["fn"]))
                for name, site in sites.items()
            }

        with numpyro.validation_enabled(False):  # what is not finite is to be named, not refused
            found = jax.jit(evaluate)(u)
        for name, kind in kinds.items():
            value = float(found[name][0])
            if not np.isfinite(value):
                return f"{kind} has log density {value}{_singular(np.asarray(found[name][1]))}"
        return ""

    def _rows(self, key: Array, batches: int = 1) -> dict[str, Array]:
        """{plate: rows of a minibatch}."""
        return {
            name: subset(jax.random.fold_in(key, i), size, min(batches * batch_size, size))
            for i, (name, (size, batch_size)) in enumerate(self.plates.items())
        }

    def _on(self, rows: dict[str, Array]) -> LogDensity:
        """The log density with these rows of the subsampled plates."""

        def density(u: Array) -> Array:
            arrays, log_det = self.coordinates.transform(u)
            z = self.coordinates.split(arrays)
            seeded = self._seeded(rows)
            # the numbers that there are without a latent were checked when the target was made
            with numpyro.validation_enabled(False), handlers.block():
                if self.summed is not None:
                    return self.summed.log_joint(z) + log_det
                if self.is_moving:
                    return -potential_energy(seeded, self.args, self.kwargs, z)
                trace = self._trace(handlers.substitute(seeded, data=z))
                return log_joint(trace, self.coordinates, arrays) + log_det

        return density

    def _on_more(self, rows: dict[str, Array]) -> LogDensity:
        """`_on` with more rows than the plates have in a batch, of which NumPyro would warn."""

        def density(u: Array) -> Array:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="subsample_size does not match")
                return self._on(rows)(u)

        return density

    def _seeded(self, rows: dict[str, Array]) -> Callable[..., Any]:
        return handlers.seed(handlers.substitute(self.model, data=rows), jax.random.key(0))

    def _trace(self, model: Callable[..., Any]) -> Trace:
        # within another model: that one is to see nothing of this one
        with handlers.block():
            return handlers.trace(model).get_trace(*self.args, **self.kwargs)


def log_joint(trace: Trace, coordinates: Coordinates, arrays: list[Array]) -> Array:
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
        pairs = [_column(column) for column in columns]
        leaves = [leaf for leaf, _ in pairs]
        axes = [axis for _, axis in pairs]
        one = functools.partial(_one_log_prob, jax.tree.structure(sites[0]["fn"]))
        total += jax.vmap(one, in_axes=(axes, 0))(leaves, values).sum()
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


def _covariance(fn: Any) -> Array:
    """The covariance [..., N, N] that a distribution was made with; [0] where it has none."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        fn = fn.base_dist
    given = vars(fn).get("covariance_matrix")
    return jnp.zeros(0) if given is None else jnp.asarray(given)


def _singular(covariance: np.ndarray) -> str:
    """What is wrong with covariances [..., N, N]; empty for none, or none that is singular."""
    if covariance.ndim < 2:
        return ""
    size = covariance.shape[-1]
    matrices = covariance.reshape(-1, size, size).astype(np.float64)
    if not np.all(np.isfinite(matrices)):
        return ", whose covariance is not finite"
    for matrix in matrices:
        values = np.asarray(linalg.eigh(jnp.asarray(matrix))[0])
        if values[0] > size * np.finfo(values.dtype).eps * abs(values[-1]):
            continue
        text = (
            f", whose covariance is singular (its eigenvalues go from {values[0]:.1e} to "
            f"{values[-1]:.1e}"
        )
        gaps = np.max(np.abs(matrix[:, None] - matrix[None]), axis=-1)
        gaps[np.tril_indices(size)] = np.inf
        first, second = np.unravel_index(np.argmin(gaps), gaps.shape)
        if gaps[first, second] <= 1e-9 * np.abs(matrix).max():
            text += f"; its rows {first} and {second} are equal"
        return f"{text})"
    return ""
