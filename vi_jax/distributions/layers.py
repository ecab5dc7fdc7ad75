"""Densities as transports of noise, and several layers of them as one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

Array = jax.Array
_LOC_SCALE = (dist.Cauchy, dist.Gumbel, dist.Laplace, dist.Logistic, dist.Normal)
_WRAPPERS = (dist.Independent, dist.ExpandedDistribution)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layers:
    """p(z_1) p(z_2 | z_1) p(z_3 | z_1, z_2) ...: a hierarchical guide or prior as one density over
    the tuple (z_1, z_2, ...).

    Each layer is a function (params, z_1, ..., z_{l-1}) -> distribution of z_l, reparameterised and
    with an event of its own; all numbers that it knows are in `params`, a pytree, so that `freeze`,
    `jit` and `grad` see them.
    """

    params: Any
    layers: tuple[Callable[..., Any], ...] = field(metadata={"static": True})
    has_rsample = True

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """Draws, top down, each leaf [*sample_shape, ...]."""
        one = self._one
        for _ in sample_shape:
            one = jax.vmap(one)
        return one(jax.random.split(key, sample_shape) if sample_shape else key)

    def _one(self, key: Array) -> tuple[Any, ...]:
        z: tuple[Any, ...] = ()
        for key_l, layer in zip(jax.random.split(key, len(self.layers)), self.layers, strict=True):
            z = (*z, layer(self.params, *z).sample(key_l))
        return z

    def log_prob(self, value: tuple[Any, ...]) -> Array:
        """log p(z_1, z_2, ...) of one z, nats."""
        return sum(
            (p.log_prob(z_l) for p, z_l in zip(self._given(value), value, strict=True)),
            jnp.zeros(()),
        )

    def to_noise(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """eps of one z: `from_noise` undone."""
        return tuple(to_noise(p, z_l) for p, z_l in zip(self._given(value), value, strict=True))

    def from_noise(self, eps: tuple[Any, ...]) -> tuple[Any, ...]:
        """z of one eps; what a layer is given depends on the parameters too."""
        z: tuple[Any, ...] = ()
        for layer, eps_l in zip(self.layers, eps, strict=True):
            z = (*z, from_noise(layer(self.params, *z), eps_l))
        return z

    def _given(self, value: tuple[Any, ...]) -> list[Any]:
        if len(value) != len(self.layers):
            raise ValueError(
                f"Layers wants one z for each of its {len(self.layers)} layers; got {len(value)}."
            )
        return [layer(self.params, *value[:l]) for l, layer in enumerate(self.layers)]


def to_noise(p: Any, z: Any) -> Any:
    """eps = T^-1(z): the noise, free of parameters, of which `from_noise` makes this z.

    Args:
      p: a location-scale density, an exponential or half-normal one, MultivariateNormal, LogNormal
        and other transforms of these in numpyro; or any object with methods `to_noise` and
        `from_noise` (`Layers`; a flow).
      z: one draw.

    Raises:
      ValueError: p is none of these.
    """
    if hasattr(p, "to_noise"):
        return p.to_noise(z)
    if isinstance(p, _WRAPPERS):
        return to_noise(p.base_dist, z)
    if isinstance(p, _LOC_SCALE):
        return (z - p.loc) / p.scale
    if isinstance(p, dist.HalfNormal):
        return z / p.scale
    if isinstance(p, dist.Exponential):
        return z * p.rate
    if isinstance(p, dist.MultivariateNormal):
        return solve_triangular(p.scale_tril, z - p.loc, lower=True)
    if isinstance(p, dist.TransformedDistribution):
        for transform in reversed(p.transforms):
            z = transform.inv(z)
        return to_noise(p.base_dist, z)
    raise ValueError(_unknown(p))


def from_noise(p: Any, eps: Any) -> Any:
    """z = T(eps), differentiable in all parameters of p; arguments and errors as for `to_noise`."""
    if hasattr(p, "from_noise"):
        return p.from_noise(eps)
    if isinstance(p, _WRAPPERS):
        return from_noise(p.base_dist, eps)
    if isinstance(p, _LOC_SCALE):
        return p.loc + p.scale * eps
    if isinstance(p, dist.HalfNormal):
        return p.scale * eps
    if isinstance(p, dist.Exponential):
        return eps / p.rate
    if isinstance(p, dist.MultivariateNormal):
        return p.loc + p.scale_tril @ eps
    if isinstance(p, dist.TransformedDistribution):
        z = from_noise(p.base_dist, eps)
        for transform in p.transforms:
            z = transform(z)
        return z
    raise ValueError(_unknown(p))


def _unknown(p: Any) -> str:
    return (
        f"no transport from noise is known for {type(p).__name__}; take a location-scale "
        "density, MultivariateNormal, a transform "
        "of these, or give it methods to_noise(z) and from_noise(eps), each the other's inverse."
    )
