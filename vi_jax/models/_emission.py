"""p(x | h) of an array x by a decoder network and a likelihood: the last part of most models."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from vi_jax.models.likelihoods import Likelihood
from vi_jax.models.networks import Network
from vi_jax.types import Array, Params


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

    def flat(params: Params, x: Array, h: Array) -> Any:
        """p(x | h) over flat pixels: the same numbers, and a CPU sums one axis faster than two."""
        check_shape(x, x_shape)
        outputs = decoder.apply(params["decoder"], h).reshape(-1, likelihood.num_outputs)
        own = jax.tree.map(
            lambda leaf: leaf.ravel() if leaf.shape == x_shape else leaf, params["likelihood"]
        )
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


def check_shape(x: Array, x_shape: tuple[int, ...]) -> None:
    """Raises ValueError where x is not one example."""
    if x.shape != x_shape:
        raise ValueError(
            f"this model expects one example of shape {x_shape}; got {x.shape}. vmap over a batch."
        )
