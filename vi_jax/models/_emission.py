"""p(x | h) of an array x by a decoder network and a likelihood: the last part of most models."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from vi_jax.models._kl import KL
from vi_jax.models.from_densities import from_densities
from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Model, Params


class Emission(NamedTuple):
    """p(x | h), of parameters {"decoder", "likelihood"}, which may be part of a larger
    dictionary.
    """

    init: Callable[[Array], Params]  # key -> these parameters
    decode: Callable[[Params, Array], Any]  # (params, h) -> p(x | h), of batch shape x_shape
    log_lik: Callable[[Params, Array, Array], Array]  # (params, x, h) -> nats, a scalar
    # (params, x, h) -> statistics, and (key, params, their mean) -> params: see `Model.update`
    stats: Callable[[Params, Array, Array], Any] | None
    update: Callable[[Array, Params, Any], Params] | None


def emission(x_shape: Sequence[int], decoder: Network, likelihood: Likelihood) -> Emission:
    """The emission of a network from h to [*x_shape, num_outputs], the likelihood's outputs."""
    x_shape = tuple(x_shape)

    def init(key: Array) -> Params:
        return {"decoder": decoder.init(key), "likelihood": likelihood.init(x_shape)}

    def decode(params: Params, h: Array) -> Any:
        return likelihood.make(params["likelihood"], decoder.apply(params["decoder"], h))

    def flat_leaf(leaf: Array) -> Array:
        """Parameters [*x_shape, ...] as [P, ...]; others as they are."""
        rank = len(x_shape)
        return leaf.reshape(-1, *leaf.shape[rank:]) if leaf.shape[:rank] == x_shape else leaf

    def flat(params: Params, x: Array, h: Array) -> Any:
        """p(x | h) over flat pixels: the same numbers, and a CPU sums one axis faster than two."""
        check_shape(x, x_shape)
        outputs = decoder.apply(params["decoder"], h).reshape(-1, likelihood.num_outputs)
        own = jax.tree.map(flat_leaf, params["likelihood"])
        return likelihood.make(own, outputs)

    def log_lik(params: Params, x: Array, h: Array) -> Array:
        return flat(params, x, h).log_prob(x.ravel()).sum()

    def stats(params: Params, x: Array, h: Array) -> Any:
        return likelihood.stats(x.ravel(), flat(params, x, h))  # type: ignore[misc]

    def update(key: Array, params: Params, mean_stats: Any) -> Params:
        del key
        own = likelihood.update(params["likelihood"], mean_stats)  # type: ignore[misc]
        return {**params, "likelihood": own}

    if likelihood.update is None:
        return Emission(init, decode, log_lik, None, None)
    return Emission(init, decode, log_lik, stats, update)


def from_emission(
    init: Callable[[Array], Params],
    guide: Callable[[Params, Any], Any],
    prior: Callable[[Params, Any], Any],
    pixels: Emission,
    *,
    kl: KL,
    h_of: Callable[[Any, Any], Array] = lambda x, z: z,
    pixels_of: Callable[[Any], Array] = lambda x: x,
    whole: Callable[[Any, Any], Any] = lambda p, x: p,
) -> Model:
    """A Model whose likelihood is an emission.

    Args:
      init: key -> all parameters, those of the emission among them.
      guide, prior, kl: see `from_densities`.
      pixels: the emission.
      h_of: (x, z) -> what its decoder sees.
      pixels_of: x -> the array that it generates, a part of x.
      whole: (p(x | z) over the array, x) -> the same over whole examples.
    """

    def log_lik(params: Params, x: Any, z: Any) -> Array:
        return pixels.log_lik(params, pixels_of(x), h_of(x, z))

    def of_example(params: Params, x: Any, z: Any) -> Any:
        return pixels.stats(params, pixels_of(x), h_of(x, z))  # type: ignore[misc]

    stats = None if pixels.stats is None else of_example
    return from_densities(
        init,
        guide,
        prior,
        lambda params, x, z: whole(pixels.decode(params, h_of(x, z)), x),
        log_lik,
        kl=kl,
        stats=stats,
        update=pixels.update,
    )


def check_shape(x: Array, x_shape: tuple[int, ...]) -> None:
    """Raises ValueError where x is not one example."""
    if x.shape != x_shape:
        raise ValueError(
            f"this model expects one example of shape {x_shape}; got {x.shape}. vmap over a batch."
        )
