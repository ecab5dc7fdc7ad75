"""Layers over the last axis and residual blocks, dense or of 3x3 convolutions."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from vi_jax.models._convolution import convolution
from vi_jax.models._product import product
from vi_jax.models.networks import Activation, Network
from vi_jax.types import Array, Params

Layer = Callable[..., Network]  # (inputs, outputs, *, gain=1.0) -> Network over the last axis


def dense(num_inputs: int, num_outputs: int, *, gain: float = 1.0) -> Network:
    """[..., n] -> [..., m], weights from N(0, gain^2 / n)."""
    deviation = gain * num_inputs**-0.5

    def init(key: Array) -> Params:
        kernel = deviation * jax.random.normal(key, (num_inputs, num_outputs))
        return {"kernel": kernel, "bias": jnp.zeros(num_outputs)}

    def apply(params: Params, h: Array) -> Array:
        return product(h, params["kernel"]) + params["bias"]

    return Network(init, apply)


def conv(num_inputs: int, num_outputs: int, *, gain: float = 1.0, stride: int = 1) -> Network:
    """[H, W, n] -> [ceil(H / stride), ceil(W / stride), m] by filters from N(0, gain^2 / 9 n)."""
    deviation = gain * (9 * num_inputs) ** -0.5

    def init(key: Array) -> Params:
        kernel = deviation * jax.random.normal(key, (3, 3, num_inputs, num_outputs))
        return {"kernel": kernel, "bias": jnp.zeros(num_outputs)}

    def apply(params: Params, h: Array) -> Array:
        return convolution(h, params["kernel"], strides=(stride, stride)) + params["bias"]

    return Network(init, apply)


def residual(layer: Layer, width: int, activation: Activation, *, gain: float) -> Network:
    """h + layer(activation(layer(activation(h)))) (He et al. 2016); the last layer starts at
    `gain`.
    """
    first = layer(width, width)
    last = layer(width, width, gain=gain)

    def init(key: Array) -> Params:
        key_first, key_last = jax.random.split(key)
        return {"first": first.init(key_first), "last": last.init(key_last)}

    def apply(params: Params, h: Array) -> Array:
        inner = activation(first.apply(params["first"], activation(h)))
        return h + last.apply(params["last"], inner)

    return Network(init, apply)


def chain(*networks: Network) -> Network:
    """One after the other, of parameters [first, second, ...]."""

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(networks))
        return [network.init(k) for network, k in zip(networks, keys, strict=True)]

    def apply(params: Params, h: Array) -> Array:
        for network, own in zip(networks, params, strict=True):
            h = network.apply(own, h)
        return h

    return Network(init, apply)


def pure(function: Callable[[Array], Array]) -> Network:
    """A function without parameters."""
    return Network(lambda key: {}, lambda params, h: function(h))


def doubled(shape: Sequence[int]) -> Network:
    """[h, w, c] -> [*shape, c] by repeating each pixel twice both ways, and cropping."""
    (height, width) = shape
    return pure(lambda h: h.repeat(2, 0).repeat(2, 1)[:height, :width])
