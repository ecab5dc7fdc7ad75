"""Two-dimensional convolutions and transposed convolutions, in the form that is fastest where they
run.

On a GPU or TPU they are `jax.lax.conv_general_dilated`. On a CPU XLA runs that on one thread inside
a compiled loop, and slower than PyTorch outside; there they are matrix products, and so are their
gradients (`_convolution_forms`). The form is chosen when a program is lowered for its platform.

Images are [..., H, W, C], with any number of leading axes: `vmap` adds one, however it is nested,
and never splits a product. Three maps are linear in each of their two arguments, and each is the
gradient of the two others, so that derivatives of any order are made of them:

    y = convolve(x, w)        y_ijo = sum_abc x_{si+a-p, sj+b-q, c} w_abco
    x = spread(y, w)          the adjoint of `convolve` in x: the transposed convolution
    w = correlate(x, y)       the adjoint of `convolve` in w, summed over all leading axes
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from vi_jax.models import _convolution_forms as forms
from vi_jax.types import Array


def convolution(
    x: Array, w: Array, *, strides: Sequence[int], factors: Any = None, out: Any = None
) -> Array:
    """The convolution of x [..., H, W, C] with w [kh, kw, C, O] and padding SAME, [..., ceil(H /
    s), ceil(W / s), O].

    The same as `jax.lax.conv_general_dilated`. Factors are rounded to `factors`, sums are in the
    type `out`; both are the type of x if not given.
    """
    (height, width) = x.shape[-3:-1]
    sizes = [
        _same(size, k, s) for size, k, s in zip((height, width), w.shape[:2], strides, strict=True)
    ]
    (rows, columns) = sizes
    geometry = forms.Geometry(
        (height, width),
        (rows[0], columns[0]),
        (w.shape[0], w.shape[1]),
        (strides[0], strides[1]),
        (rows[1], columns[1]),
    )
    return _bind(convolve_p, x, w, geometry, factors, out)


def transposed_convolution(
    y: Array, w: Array, *, strides: Sequence[int], factors: Any = None, out: Any = None
) -> Array:
    """The transposed convolution of y [..., H, W, C] with w [kh, kw, C, O] and padding SAME, [...,
    sH, sW, O].

    The same as `jax.lax.conv_transpose`, which does not flip its kernel: `spread` by the flipped
    one. Types as for `convolution`.
    """
    (height, width) = y.shape[-3:-1]
    (kh, kw) = w.shape[:2]
    (sh, sw) = strides
    geometry = forms.Geometry(
        (height * sh, width * sw),
        (height, width),
        (kh, kw),
        (sh, sw),
        (_transposed_low(kh, sh), _transposed_low(kw, sw)),
    )
    return _bind(spread_p, y, w[::-1, ::-1].swapaxes(2, 3), geometry, factors, out)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The size of the outcome of padding SAME, and the zeros before the first row."""
    out = -(-size // stride)
    return out, max((out - 1) * stride + kernel - size, 0) // 2


def _transposed_low(kernel: int, stride: int) -> int:
    """The rows cut before the first one of a transposed convolution of padding SAME, as in
    `jax.lax.conv_transpose`.
    """
    if stride > kernel - 1:
        return 0
    return kernel - 1 - -(-(kernel + stride - 2) // 2)


def _bind(
    primitive: Primitive, a: Array, b: Array, geometry: forms.Geometry, factors: Any, out: Any
) -> Array:
    return primitive.bind(
        a,
        b,
        geometry=geometry,
        groups=0,
        factors=jnp.dtype(factors or a.dtype),
        out=jnp.dtype(out or a.dtype),
    )


# The three primitives. `groups` leading axes are those of both arguments: each of them is a
# problem of its own, as where one maps over kernels.


def _shape_of_convolve(x: Any, w: Any, *, geometry: forms.Geometry, **_: Any) -> tuple[int, ...]:
    return (*x.shape[:-3], *geometry.out, w.shape[-1])


def _shape_of_spread(y: Any, w: Any, *, geometry: forms.Geometry, **_: Any) -> tuple[int, ...]:
    return (*y.shape[:-3], *geometry.image, w.shape[-2])


def _shape_of_correlate(
    x: Any, y: Any, *, geometry: forms.Geometry, groups: int, **_: Any
) -> tuple[int, ...]:
    return (*x.shape[:groups], *geometry.kernel, x.shape[-1], y.shape[-1])


def _primitive(
    name: str,
    shape: Callable[..., tuple[int, ...]],
    by_product: Callable[..., Array],
    by_lax: Callable[..., Array],
) -> Any:
    """A primitive of two arrays with a form for CPUs and one for all other platforms."""
    primitive = Primitive(name)

    def form(f: Callable[..., Array]) -> Callable[..., Array]:
        def grouped(a: Array, b: Array, *, groups: int, **sizes: Any) -> Array:
            one = partial(f, **sizes)
            for _ in range(groups):
                one = jax.vmap(one)
            return one(a, b)

        return grouped

    def either(a: Array, b: Array, **params: Any) -> Array:
        cpu = partial(form(by_product), **params)
        return jax.lax.platform_dependent(a, b, cpu=cpu, default=partial(form(by_lax), **params))

    def outcome(a: Any, b: Any, **params: Any) -> Any:
        return jax.core.ShapedArray(shape(a, b, **params), params["out"])

    static = ("geometry", "groups", "factors", "out")
    primitive.def_impl(jax.jit(either, static_argnames=static))
    primitive.def_abstract_eval(outcome)
    mlir.register_lowering(primitive, mlir.lower_fun(form(by_lax), multiple_results=False))
    mlir.register_lowering(
        primitive, mlir.lower_fun(form(by_product), multiple_results=False), platform="cpu"
    )
    return primitive


convolve_p = _primitive(
    "convolve", _shape_of_convolve, forms.convolve_by_product, forms.convolve_by_lax
)
spread_p = _primitive("spread", _shape_of_spread, forms.spread_by_product, forms.spread_by_lax)
correlate_p = _primitive(
    "correlate", _shape_of_correlate, forms.correlate_by_product, forms.correlate_by_lax
)


def _like(primitive: Any) -> Callable[..., Array]:
    """A rule of transposition: that primitive of two of the arrays, in the type of the third."""

    def bind(a: Array, b: Array, into: Any, *, out: Any, **params: Any) -> Array:
        del out
        return primitive.bind(a, b, out=into.aval.dtype, **params)

    return bind


_convolved = _like(convolve_p)
_spread = _like(spread_p)
_correlated = _like(correlate_p)

ad.defbilinear(
    convolve_p,
    lambda y, x, w, **params: _spread(y, w, x, **params),
    lambda y, x, w, **params: _correlated(x, y, w, **params),
)
ad.defbilinear(
    spread_p,
    lambda x, y, w, **params: _convolved(x, w, y, **params),
    lambda x, y, w, **params: _correlated(x, y, w, **params),
)
ad.defbilinear(
    correlate_p,
    lambda w, x, y, **params: _spread(y, w, x, **params),
    lambda w, x, y, **params: _convolved(x, w, y, **params),
)


def _batch_images(primitive: Any, args: Any, axes: Any, **params: Any) -> tuple[Array, int]:
    """`convolve` and `spread`: another leading axis of the images alone, or a group of both."""
    (images, w) = args
    (axis, axis_w) = axes
    if axis_w is not None:
        return _batch_groups(primitive, args, axes, **params)
    groups = params["groups"]
    return primitive.bind(jnp.moveaxis(images, axis, groups), w, **params), groups


def _batch_groups(
    primitive: Any, args: Any, axes: Any, *, groups: int, **params: Any
) -> tuple[Array, int]:
    """A group for each member of both arguments; always so for `correlate`, a sum over images."""
    (size,) = {a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None}
    members = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args, axes, strict=True)
    ]
    return primitive.bind(*members, groups=groups + 1, **params), 0


batching.primitive_batchers[convolve_p] = partial(_batch_images, convolve_p)
batching.primitive_batchers[spread_p] = partial(_batch_images, spread_p)
batching.primitive_batchers[correlate_p] = partial(_batch_groups, correlate_p)
