"""Gated multilayer perceptrons as encoders and decoders."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.models._product import product
from vi_jax.models.networks import Network
from vi_jax.types import Array, Params


def gated_mlp_encoder(
    x_shape: Sequence[int],
    num_outputs: int,
    hidden: Sequence[int] = (300, 300),
    *,
    dtype: Any = None,
) -> Network:
    """x, flattened, through layers (W h + b) * sigmoid(V h + c) of widths `hidden` and a linear one
    (van den Oord et al. 2016; Tomczak & Welling 2018, sec. 5.1, two layers of 300).

    Weights start as in He et al. (2015), the last layer's near 0, so that q starts near its prior.
    `dtype`, here and below, is that of the factors of each product; sums stay float32.
    """
    sizes = (math.prod(x_shape), *hidden, num_outputs)

    def apply(params: Params, x: Array) -> Array:
        return _forward(params, x.ravel(), len(hidden), dtype)

    return Network(lambda key: _init(key, sizes, last_scale=0.1), apply)


def gated_mlp_decoder(
    x_shape: Sequence[int],
    num_outputs: int,
    num_latents: int,
    hidden: Sequence[int] = (300, 300),
    output_bias: Any = None,
    *,
    dtype: Any = None,
) -> Network:
    """z through gated layers of widths `hidden`, from the latent towards the image, to [*x_shape,
    num_outputs]; see `gated_mlp_encoder`, and `networks.mlp_decoder` for `output_bias`.

    Raises:
      ValueError: output_bias has another shape than the outputs.
    """
    shape = (*x_shape, num_outputs)
    sizes = (num_latents, *hidden, math.prod(shape))
    if output_bias is not None and jnp.shape(output_bias) != shape:
        raise ValueError(
            f"output_bias needs the shape of the decoder's outputs, {shape}; got "
            f"{jnp.shape(output_bias)}."
        )

    def init(key: Array) -> Params:
        params = _init(key, sizes, last_scale=1.0)
        if output_bias is not None:
            bias = params["out"]["bias"]
            params["out"]["bias"] = jnp.asarray(output_bias, bias.dtype).ravel()
        return params

    def apply(params: Params, z: Array) -> Array:
        return _forward(params, z, len(hidden), dtype).reshape(shape)

    return Network(init, apply)


def _init(key: Array, sizes: Sequence[int], *, last_scale: float) -> Params:
    """{"gated_0": {"kernel": [n, 2 m], "bias"}, ..., "out"}; the halves are W and V."""
    last = len(sizes) - 2
    params = {}
    for number, k in enumerate(jax.random.split(key, last + 1)):
        inputs = sizes[number]
        outputs = sizes[number + 1] * (1 if number == last else 2)
        gain = last_scale if number == last else 2.0**0.5
        kernel = gain * inputs**-0.5 * jax.random.normal(k, (inputs, outputs))
        name = "out" if number == last else f"gated_{number}"
        params[name] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
    return params


def _forward(params: Params, h: Array, num_gated: int, dtype: Any) -> Array:
    for number in range(num_gated):
        value, gate = jnp.split(_linear(params[f"gated_{number}"], h, dtype), 2)
        h = value * jax.nn.sigmoid(gate)
    return _linear(params["out"], h, dtype)


def _linear(params: Params, h: Array, dtype: Any) -> Array:
    """The product, and the bias in the type of the parameters."""
    kernel = params["kernel"]
    h = h.astype(kernel.dtype)
    return product(h, kernel, factors=dtype, out=kernel.dtype) + params["bias"]
