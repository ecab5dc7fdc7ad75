"""Distributions of a layer of latents from a row of numbers, and networks between layers."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.distributions import Bernoulli
from vi_jax.models.networks import Network
from vi_jax.types import Array, Params

_SOFTPLUS_ONE = 0.5413248546129181  # log(e - 1), where softplus is 1


def diagonal(row: Array) -> dist.Independent:
    """N(loc, diag(scale^2)) over [D] from a row [2 D] of loc and log scale."""
    loc, log_scale = jnp.split(row, 2)
    return dist.Normal(loc, jnp.exp(log_scale)).to_event(1)


def diagonal_by_softplus(row: Array) -> dist.Independent:
    """As `diagonal`, of scale softplus(r + log(e - 1)), which is 1 at r = 0 and grows as r: the
    samples of one layer go into the next, and exponentials of exponentials overflow.
    """
    loc, raw = jnp.split(row, 2)
    return dist.Normal(loc, jax.nn.softplus(raw + _SOFTPLUS_ONE)).to_event(1)


def standard_normal(num_latents: int) -> dist.Independent:
    """N(0, I) over [D]."""
    return dist.Normal(jnp.zeros(num_latents), jnp.ones(num_latents)).to_event(1)


def coins(logits: Array) -> dist.Independent:
    """Independent Bernoulli variables over [D] by their logits."""
    return Bernoulli(logits).to_event(1)


def site_names(num_layers: int) -> list[str]:
    """z1 (next to x), z2, ..."""
    return [f"z{number}" for number in range(1, num_layers + 1)]


def require_sizes(model: str, num_latents: Sequence[int], hidden: Sequence[Sequence[int]]) -> None:
    """Raises ValueError where a size is not positive, or hidden has not one tuple for each layer of
    latents.
    """
    sizes = [*num_latents, *(width for widths in hidden for width in widths)]
    if not num_latents or min(sizes) < 1 or len(hidden) != len(num_latents):
        raise ValueError(
            f"{model} expects positive sizes, one number of latents and one tuple of hidden widths "
            f"for each layer; got num_latents {tuple(num_latents)} and hidden {tuple(hidden)}."
        )


def init_all(key: Array, layers: Mapping[str, Network]) -> dict[str, Params]:
    """The parameters of each network, by name."""
    keys = jax.random.split(key, max(len(layers), 1))
    return {name: layer.init(k) for k, (name, layer) in zip(keys, layers.items(), strict=False)}


def as_float(x: Array) -> Array:
    """x, whole numbers as floats."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
