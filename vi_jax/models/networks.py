"""Encoders and decoders for one example, as (init, apply) pairs made from Flax modules.

An encoder maps x [*x_shape] to a vector [num_outputs]; a decoder maps z [D] to [*x_shape,
num_outputs]. `vmap` where the plural begins. Any other pair of functions of the same shapes serves
as well.

Mixed precision (Micikevicius et al. 2018): with `dtype=jnp.bfloat16` activations, and the factors
of every product, are bfloat16. Parameters and their gradients stay float32, and so do the outputs,
sums and bias of the last layer, so that a density or a KL never sees a rounded logit.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.models._convolution import convolution, transposed_convolution
from vi_jax.models._product import product
from vi_jax.types import Array, Params

Activation = Callable[[Array], Array]


class Network(NamedTuple):
    """A function with parameters."""

    init: Callable[[Array], Params]  # key -> params
    apply: Callable[[Params, Array], Array]  # (params, input of one example) -> output


def mlp_encoder(
    x_shape: Sequence[int],
    num_outputs: int,
    hidden: Sequence[int] = (500,),
    activation: Activation = nn.tanh,
    *,
    dtype: Any = None,
) -> Network:
    """x, flattened, through dense layers of widths `hidden`; the last layer starts small, so that q
    starts near its prior.

    `dtype`, here and below, is that of the activations; that of the parameters if not given.
    """
    module = _Encoder(tuple(hidden), num_outputs, activation, dtype)
    return _network(module, tuple(x_shape))


def mlp_decoder(
    x_shape: Sequence[int],
    num_outputs: int,
    num_latents: int,
    hidden: Sequence[int] = (500,),
    activation: Activation = nn.tanh,
    output_bias: Any = None,
    *,
    dtype: Any = None,
) -> Network:
    """z through dense layers of widths `hidden` (from the latent towards the image) to [*x_shape,
    num_outputs].

    `output_bias` [*x_shape, num_outputs] is where the last layer's bias starts (zeros if not
    given): the logit of the mean image, for a Bernoulli likelihood (Burda et al. 2016, appendix C).
    """
    shape = (*x_shape, num_outputs)
    module = _Decoder(tuple(hidden), shape, activation, _constant(output_bias, shape), dtype)
    return _network(module, (num_latents,))


def conv_encoder(
    x_shape: Sequence[int],
    num_outputs: int,
    hidden: Sequence[int] = (32, 64),
    activation: Activation = nn.gelu,
    *,
    dtype: Any = None,
) -> Network:
    """An image [H, W] or [H, W, C] through 3x3 convolutions of stride 2, one for each width, and a
    dense layer.

    Raises:
      ValueError: x_shape is not that of an image.
    """
    _check_image(x_shape)
    return _network(_ConvEncoder(tuple(hidden), num_outputs, activation, dtype), tuple(x_shape))


def conv_decoder(
    x_shape: Sequence[int],
    num_outputs: int,
    num_latents: int,
    hidden: Sequence[int] = (64, 32),
    activation: Activation = nn.gelu,
    *,
    dtype: Any = None,
) -> Network:
    """z through a dense layer and transposed 3x3 convolutions of stride 2, cropped to an image [H,
    W] or [H, W, C].

    Raises:
      ValueError: x_shape is not that of an image.
    """
    _check_image(x_shape)
    return _network(
        _ConvDecoder(tuple(hidden), (*x_shape, num_outputs), activation, dtype), (num_latents,)
    )


def _constant(value: Any, shape: tuple[int, ...]) -> Callable[..., Array]:
    if value is None:
        return nn.initializers.zeros_init()
    if np.shape(value) != shape:
        raise ValueError(
            f"output_bias needs the shape of the decoder's outputs, {shape}; got {np.shape(value)}."
        )
    return lambda key, shape, dtype=jnp.float32: jnp.asarray(value, dtype).reshape(shape)


def _check_image(x_shape: Sequence[int]) -> None:
    if len(x_shape) not in (2, 3):
        raise ValueError(
            f"a convolution expects images [H, W] or [H, W, C]; got x_shape {tuple(x_shape)}. Take "
            "the MLP."
        )


def _network(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    def init(key: Array) -> Params:
        return jax.jit(module.init)(key, jnp.zeros(input_shape))["params"]

    def apply(params: Params, x: Array) -> Array:
        return module.apply({"params": params}, x)  # type: ignore[return-value]

    return Network(init, apply)


def _dense(size: int, *, dtype: Any, out: Any, **options: Any) -> nn.Module:
    """A dense layer by `_product`, its factors in `dtype`, its sums in `out`, its bias as it is."""

    def dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any) -> Array:
        del dimensions, precision
        return product(x, kernel, factors=dtype, out=out)

    if dtype is not None:
        options["promote_dtype"] = lambda *values, dtype: (
            values
        )  # `product` rounds the factors, and only them
    return nn.Dense(size, dot_general=dot_general, **options)


class Conv(nn.Module):
    """`flax.linen.Conv` with padding SAME, by `_convolution`: the same parameters, values and
    gradients.

    Factors are rounded to `dtype` and sums are in `out`; the bias is as it is.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    dtype: Any = None
    out: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _convolved(self, convolution, x)


class ConvTranspose(nn.Module):
    """`flax.linen.ConvTranspose` with padding SAME, as `Conv` is that of a convolution."""

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    dtype: Any = None
    out: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _convolved(self, transposed_convolution, x)


def _convolved(module: Any, form: Callable[..., Array], x: Array) -> Array:
    shape = (*module.kernel_size, x.shape[-1], module.features)
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    bias = module.param("bias", nn.initializers.zeros_init(), shape[-1:], jnp.float32)
    if module.dtype is None:
        (x, kernel, bias) = nn.dtypes.promote_dtype(x, kernel, bias)
    y = form(x, kernel, strides=module.strides, factors=module.dtype, out=module.out)
    return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def _hidden(
    layer: Callable[..., nn.Module], *args: Any, dtype: Any, **options: Any
) -> Callable[[Array], Array]:
    """A layer within the network, whose outputs are in `dtype`, if one is given."""
    module: Any = layer(*args, dtype=dtype, out=dtype, **options)
    return module if dtype is None else lambda x: module(x).astype(dtype)


def _last(
    layer: Callable[..., nn.Module], *args: Any, dtype: Any, **options: Any
) -> Callable[[Array], Array]:
    """The layer whose outputs leave the network: with a `dtype`, float32 sums of its products."""
    out = None if dtype is None else jnp.float32
    return layer(*args, dtype=dtype, out=out, **options)  # type: ignore[return-value]


_small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class _Encoder(nn.Module):
    hidden: tuple[int, ...]
    num_outputs: int
    activation: Activation
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = jnp.ravel(x)
        for width in self.hidden:
            h = self.activation(_hidden(_dense, width, dtype=self.dtype)(h))
        return _last(_dense, self.num_outputs, kernel_init=_small, dtype=self.dtype)(h)


class _Decoder(nn.Module):
    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: Activation
    bias_init: Callable[..., Array]
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = z
        for width in self.hidden:
            h = self.activation(_hidden(_dense, width, dtype=self.dtype)(h))
        return _last(_dense, math.prod(self.shape), bias_init=self.bias_init, dtype=self.dtype)(
            h
        ).reshape(self.shape)


class _ConvEncoder(nn.Module):
    hidden: tuple[int, ...]
    num_outputs: int
    activation: Activation
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x if x.ndim == 3 else x[..., None]
        for width in self.hidden:
            h = self.activation(_hidden(Conv, width, (3, 3), (2, 2), dtype=self.dtype)(h))
        return _last(_dense, self.num_outputs, kernel_init=_small, dtype=self.dtype)(jnp.ravel(h))


class _ConvDecoder(nn.Module):
    hidden: tuple[int, ...]
    shape: tuple[int, ...]  # [H, W, num_outputs] or [H, W, C, num_outputs]
    activation: Activation
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        height, width = self.shape[:2]
        stride = 2 ** len(self.hidden)
        rows = -(-height // stride)
        columns = -(-width // stride)
        h = self.activation(_hidden(_dense, rows * columns * self.hidden[0], dtype=self.dtype)(z))
        h = h.reshape(rows, columns, self.hidden[0])
        for channels in self.hidden[1:]:
            h = self.activation(
                _hidden(ConvTranspose, channels, (3, 3), (2, 2), dtype=self.dtype)(h)
            )
        h = _last(ConvTranspose, math.prod(self.shape[2:]), (3, 3), (2, 2), dtype=self.dtype)(h)
        return h[:height, :width].reshape(self.shape)
