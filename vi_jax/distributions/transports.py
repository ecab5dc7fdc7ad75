"""Densities as transports of noise: from noise to a draw, and back."""

from typing import Any

import numpyro.distributions as dist

from vi_jax import linalg

_LOC_SCALE = (dist.Cauchy, dist.Gumbel, dist.Laplace, dist.Logistic, dist.Normal)
_WRAPPERS = (dist.Independent, dist.ExpandedDistribution)


def to_noise(p: Any, z: Any) -> Any:
    """eps = T^-1(z): the noise, free of parameters, of which `from_noise` makes this z.

    Args:
      p: a location-scale density, an exponential or half-normal one, MultivariateNormal, LogNormal
        and other transforms of these in numpyro; or any object with methods `to_noise` and
        `from_noise` (`Program`; a flow).
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
        return linalg.solve_triangular(p.scale_tril, z - p.loc, lower=True)
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
