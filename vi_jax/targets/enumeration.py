"""Discrete latent sites of a NumPyro model summed out, by NumPyro's own enumeration (funsor)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from vi_jax.targets.target import TargetError
from vi_jax.types import Array

Trace = dict[str, dict[str, Any]]
MARK = 'infer={"enumerate": "parallel"}'


class Enumerated(NamedTuple):
    """A model whose marked discrete sites are summed out."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    supports: dict[str, Array]  # {site: its values [K]}
    shapes: dict[str, tuple[int, ...]]  # {site: its shape}
    first_dim: int  # the first axis from the right that no plate takes

    def log_joint(self, z: dict[str, Array], tilts: dict[str, Array] | None = None) -> Array:
        """log sum over the discrete sites of p(x, z, discrete), nats, at values of the others.

        Args:
          z: {site: value} of the continuous sites.
          tilts: {discrete site: [K, *shape]}, added to its log density at each value.
        """
        from numpyro.contrib.funsor import enum, log_density

        model = self.model
        if tilts is not None:
            model = _Tilt(model, self.supports, tilts)
        counted = enum(model, first_available_dim=self.first_dim)
        seeded = handlers.seed(counted, jax.random.key(0))
        value: Array = log_density(seeded, self.args, self.kwargs, z)[0]
        return value

    def probabilities(self, z: dict[str, Array]) -> dict[str, Array]:
        """{discrete site: p(site = k | x, z) [*shape, K]}, exact: the derivative of the summed
        log density in what is added to the log density of a value.
        """
        tilts = {
            name: jnp.zeros((len(support), *self.shapes[name]))
            for name, support in self.supports.items()
        }
        slopes = jax.grad(lambda tilts: self.log_joint(z, tilts))(tilts)
        return {name: jnp.moveaxis(slope, 0, -1) for name, slope in slopes.items()}


def enumerated(
    model: Callable[..., Any], args: Any, kwargs: Any, trace: Trace
) -> Enumerated | None:
    """What sums out the discrete latent sites of a model; None where there are none.

    Raises:
      TargetError: a discrete site is not marked, has no finite support or one of vectors, or funsor
        is not installed; names the site.
    """
    sites = {name: site for name, site in trace.items() if is_discrete_latent(site)}
    if not sites:
        return None
    supports = {name: values_of(name, site) for name, site in sites.items()}
    _require_funsor(next(iter(sites)))
    frames = [frame for site in trace.values() for frame in site.get("cond_indep_stack", ())]
    nesting = max([0, *(-frame.dim for frame in frames)])
    shapes = {name: tuple(jnp.shape(site["value"])) for name, site in sites.items()}
    return Enumerated(model, args, kwargs, supports, shapes, -1 - nesting)


def is_discrete_latent(site: dict[str, Any]) -> bool:
    """Whether a site of a trace is a latent of discrete values."""
    if site["type"] != "sample" or site["is_observed"]:
        return False
    support = getattr(site["fn"], "support", None)
    return bool(getattr(support, "is_discrete", False) or getattr(site["fn"], "is_discrete", False))


def values_of(name: str, site: dict[str, Any]) -> Array:
    """The values of a discrete latent site, [K].

    Raises:
      TargetError: it is not marked, or cannot be enumerated.
    """
    fn = site["fn"]
    kind = type(fn).__name__
    if site["infer"].get("enumerate") != "parallel":
        raise TargetError(
            f"the site {name!r} is discrete ({kind}); variational inference here is over "
            f"continuous latents. Mark it to be summed out, numpyro.sample(..., {MARK}), where it "
            "has few values; else sum it out by hand (a mixture likelihood), or relax it."
        )
    try:
        if fn.event_shape or not fn.has_enumerate_support:
            raise NotImplementedError
        values = jnp.asarray(fn.enumerate_support(expand=False))
    except (NotImplementedError, AttributeError, TypeError):
        raise TargetError(
            f"the site {name!r} cannot be enumerated: {kind} has no finite list of scalar values. "
            "Take a Bernoulli or a Categorical, or sum it out by hand."
        ) from None
    return values.reshape(-1)


def _require_funsor(name: str) -> None:
    try:
        import numpyro.contrib.funsor  # noqa: F401
    except ImportError as error:
        raise TargetError(
            f"the site {name!r} is discrete and marked to be summed out; NumPyro does so by "
            "funsor, which is not installed: pip install funsor (or vi_jax[enumerate])."
        ) from error


class _Tilt(Messenger):  # type: ignore[misc]
    """Adds a number to the log density of discrete sites at each of their values."""

    def __init__(self, fn: Any, supports: dict[str, Array], tilts: dict[str, Array]) -> None:
        super().__init__(fn)
        self._supports = supports
        self._tilts = tilts

    def process_message(self, message: dict[str, Any]) -> None:
        """Called by NumPyro for each site."""
        name = message.get("name")
        if message["type"] == "sample" and name in self._tilts:
            message["fn"] = _Tilted(message["fn"], self._supports[name], self._tilts[name])


class _Tilted(dist.Distribution):  # type: ignore[misc]
    """A discrete distribution whose log density has a number added at each value."""

    def __init__(self, base: Any, support: Array, tilt: Array) -> None:
        self.base = base
        self.values = support
        self.tilt = tilt  # [K, *shape]
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support

    @property
    def has_enumerate_support(self) -> bool:
        return True

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.base.sample(key, sample_shape)

    def log_prob(self, value: Array) -> Array:
        added = sum(
            jnp.where(value == self.values[k], self.tilt[k], 0.0) for k in range(len(self.values))
        )
        return self.base.log_prob(value) + added

    def enumerate_support(self, expand: bool = True) -> Array:
        return self.base.enumerate_support(expand=expand)
