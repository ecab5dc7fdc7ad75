"""Normalising flows: a diagonal Gaussian pushed through L equal layers, z = f_L(... f_1(mu + sigma
eps)).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import VectorGuide, log_standard_normal, over_leading
from vi_jax.types import Array, Family, Params


class Bijection(NamedTuple):
    """One layer f: both return log |det df/dx| at x, of the *forward* map."""

    # (params, x [D]) -> f(x) [D], log |det|
    forward: Callable[[Params, Array], tuple[Array, Array]]
    # (params, f(x) [D]) -> x [D], log |det|
    inverse: Callable[[Params, Array], tuple[Array, Array]]
    # (name of the family, D, its options), of which it can be made anew; hashable
    made_by: tuple[str, int, tuple[tuple[str, Any], ...]] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Flow(VectorGuide):
    """log q(z) = log N(x_0 | mu, sigma^2) - sum_l log |det df_l/dx| (Rezende & Mohamed 2015, eq.
    7).
    """

    loc: Array  # [D], of the base
    log_scale: Array  # [D], of the base
    layers: Any  # parameters of the layers, every leaf [L, ...]
    layer: Bijection = field(metadata={"static": True})

    @property
    def mean(self) -> Array:
        raise AttributeError(
            "the mean of a flow has no closed form; average its samples, q.sample(key, "
            "(num_samples,)).mean(0)."
        )

    def forward(self, eps: Array) -> tuple[Array, Array]:
        """z [D] of a standard normal eps [D], and log |det dz/deps|."""

        def one(x: Array, params: Params) -> tuple[Array, Array]:
            return self.layer.forward(params, x)

        z, log_dets = jax.lax.scan(one, self.loc + jnp.exp(self.log_scale) * eps, self.layers)
        return z, log_dets.sum() + self.log_scale.sum()

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """eps [D] of z [D], and log |det dz/deps| there."""

        def one(x: Array, params: Params) -> tuple[Array, Array]:
            return self.layer.inverse(params, x)

        x, log_dets = jax.lax.scan(one, z, self.layers, reverse=True)
        return (x - self.loc) * jnp.exp(-self.log_scale), log_dets.sum() + self.log_scale.sum()

    def transport(self, eps: Array) -> Array:
        return self.forward(eps)[0]

    def log_density(self, z: Array) -> Array:
        eps, log_det = self.inverse(z)
        return log_standard_normal(eps) - log_det

    def sample_and_log_prob(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Samples [*sample_shape, D] and their densities [*sample_shape] without an inverse; the
        same samples as `sample`.
        """

        def one(eps: Array) -> tuple[Array, Array]:
            z, log_det = self.forward(eps)
            return z, log_standard_normal(eps) - log_det

        return over_leading(
            one, jax.random.normal(key, (*sample_shape, *self.event_shape), self.loc.dtype)
        )


def make_family(
    name: str,
    example: Any,
    init_layer: Callable[[Array, int], Params],
    make_layer: Callable[[int], Bijection],
    *,
    num_layers: int,
    shared: tuple[str, ...],
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Family:
    """The family of flows of `num_layers` layers on a diagonal Gaussian: parameters {"loc": [D],
    "log_scale": [D], "layers"}.

    Args:
      name, example: of the family, and its latents.
      init_layer: (key, D) -> parameters of one layer; near the identity.
      make_layer: D -> the layer.
      num_layers: L.
      options: arguments of the family that its layer depends on, hashable.
      shared: ("layers",) where an encoder puts out the base alone, () where it puts out all.

    Raises:
      ValueError: there are no latents, some are not real, or there are no layers.
    """
    latents = read_latents(name, example)
    if num_layers < 1:
        raise ValueError(f"{name} expects num_layers of at least 1; got {num_layers}.")
    made_by = (name, latents.size, tuple(sorted(options.items())))
    layer = make_layer(latents.size)._replace(made_by=made_by)

    def init(key: Array) -> Params:
        layers = jax.vmap(lambda key: init_layer(key, latents.size))(
            jax.random.split(key, num_layers)
        )
        zeros = jnp.zeros(latents.size)
        return {"loc": zeros, "log_scale": zeros, "layers": layers}

    def guide(params: Params) -> Any:
        return latents.wrap(Flow(params["loc"], params["log_scale"], params["layers"], layer))

    return Family(init, guide, shared)
