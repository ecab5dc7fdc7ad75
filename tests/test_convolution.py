"""The convolutional layers are Flax's, in every transformation, and products alone on a CPU."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal, tree_allclose, tree_equal

from vi_jax.models import _convolution_forms as forms
from vi_jax.models import networks
from vi_jax.models._convolution import _same, convolution, transposed_convolution

# rows, columns, channels, features, kernel, stride
SIZES = [
    (8, 8, 3, 4, 3, 2),
    (9, 7, 1, 2, 3, 2),
    (6, 5, 12, 2, 3, 2),  # patches row by row
    (5, 6, 2, 3, 3, 1),
    (7, 9, 2, 3, 5, 3),
    (6, 5, 1, 3, 1, 2),  # no window sees the last row
    (4, 3, 2, 2, 2, 3),
    (2, 1, 1, 2, 5, 1),  # taps that see no pixel at all
]
LAYERS = {
    "conv": (networks.Conv, nn.Conv),
    "transpose": (networks.ConvTranspose, nn.ConvTranspose),
}


def pair(name, features, kernel, stride):
    """Ours, and Flax's of the same options."""
    (ours, theirs) = LAYERS[name]
    options = dict(kernel_size=(kernel, kernel), strides=(stride, stride))
    return ours(features, **options), theirs(features, **options)


def value(layer):
    return lambda params, x: (jnp.tanh(layer.apply(params, x)) ** 2).sum()


def of_a_batch(layer):
    """The outputs and both gradients of a batch, each example by itself."""

    def run(params, x):
        outputs = jax.vmap(layer.apply, (None, 0))(params, x)
        total = lambda params, x: jax.vmap(value(layer), (None, 0))(params, x).sum()  # noqa: E731
        return outputs, jax.grad(total, (0, 1))(params, x)

    return run


@pytest.mark.cases(
    rest="slow",
    default=["conv-4x3x2x2x2x3", "transpose-4x3x2x2x2x3"],
    integration=["conv-7x9x2x3x5x3", "transpose-7x9x2x3x5x3", "conv-6x5x1x3x1x2"],
)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("name", LAYERS)
def test_parameters_values_and_gradients_are_those_of_flax(name, sizes, x64):
    """To 1e-12 in float64 and to 1e-5 of the largest in float32, from the same start."""
    (height, width, channels, features, kernel, stride) = sizes
    (ours, theirs) = pair(name, features, kernel, stride)
    x = jnp.asarray(normal(0, 3, height, width, channels), jnp.float32)
    (params, of_flax) = jax.jit(
        lambda x: tuple(layer.init(jax.random.key(0), x) for layer in (ours, theirs))
    )(x[0])
    assert tree_equal(params, of_flax)
    bias = jnp.asarray(normal(1, features), jnp.float32)
    params = {"params": {**params["params"], "bias": bias}}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, x))

    @jax.jit
    def outcomes(narrow, wide):
        return of_a_batch(ours)(*narrow), of_a_batch(ours)(*wide), of_a_batch(theirs)(*wide)

    (found, found_wide, expected) = outcomes((params, x), wide)
    assert tree_allclose(found_wide, expected, rtol=1e-12, atol=1e-12)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    for leaf, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


X = normal(2, 2, 3, 5, 4, 2)
W = normal(3, 3, 3, 2, 3)
WS = np.stack([W, 2 * W])


def lax_convolution(x, w):
    images = x.reshape(-1, *x.shape[-3:])
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(images, w, (2, 2), "SAME", dimension_numbers=numbers)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def lax_transposed(x, w):
    y = jax.lax.conv_transpose(x.reshape(-1, *x.shape[-3:]), w, (2, 2), "SAME")
    return y.reshape(*x.shape[:-3], *y.shape[1:])


PAIRS = {
    "convolution": (lambda x, w: convolution(x, w, strides=(2, 2)), lax_convolution),
    "transposed": (lambda x, w: transposed_convolution(x, w, strides=(2, 2)), lax_transposed),
}


def looped(f, w, x):
    """Three steps of gradient descent in a compiled loop."""

    def step(_, w):
        return w - 0.1 * jax.grad(f)(w, x)

    return jax.jit(lambda w: jax.lax.fori_loop(0, 3, step, w))(w)


TRANSFORMS = {  # (f, kernel, kernels, images) -> what is compared
    "one example": lambda f, w, ws, x: f(w, x[0, 0]),
    "a batch": lambda f, w, ws, x: jax.grad(f, (0, 1))(w, x),
    "two vmaps": lambda f, w, ws, x: jax.grad(
        lambda v, y: jax.vmap(jax.vmap(f, (None, 0)), (None, 0))(v, y).sum(), (0, 1)
    )(w, x),
    "vmap of a gradient": lambda f, w, ws, x: jax.vmap(jax.grad(f, (0, 1)), (None, 0))(w, x[0]),
    "vmap over kernels": lambda f, w, ws, x: jax.vmap(jax.grad(f, (0, 1)))(ws, x),
    "vmap over kernels alone": lambda f, w, ws, x: jax.vmap(jax.grad(f, (0, 1)), (0, None))(
        ws, x[0]
    ),
    "vmap over a last axis": lambda f, w, ws, x: jax.vmap(f, (None, 3))(
        w, x[0].transpose(1, 2, 3, 0)
    ),
    "vmap of vmaps over kernels": lambda f, w, ws, x: jax.vmap(
        jax.vmap(jax.vmap(f, (None, 0)), (0, None)), (None, 0)
    )(ws, x),
    "vmap of gradients over kernels": lambda f, w, ws, x: jax.vmap(
        jax.vmap(jax.grad(f, (0, 1)), (None, 0)), (0, None)
    )(ws, x[0]),
    "jvp": lambda f, w, ws, x: jax.jvp(f, (w, x[0]), (w, x[0])),
    "hessian in x": lambda f, w, ws, x: jax.vmap(jax.hessian(f, 1), (None, 0))(w, x[0]),
    "hessian in w": lambda f, w, ws, x: jax.hessian(f)(w, x[0]),
    "scan and checkpoint": lambda f, w, ws, x: jax.grad(
        lambda v: jax.lax.map(jax.checkpoint(lambda y: f(v, y)), x[0], batch_size=2).sum()
    )(w),
    "fori_loop": lambda f, w, ws, x: looped(f, w, x[0]),
    "no jit": lambda f, w, ws, x: without_jit(jax.grad(f), w, x[0, 0]),
}


def without_jit(f, *args):
    with jax.disable_jit():
        return f(*args)


# that add little to the others of this list, and take two seconds
RARE = {"hessian in x", "hessian in w", "vmap of vmaps over kernels", "vmap over kernels alone"}


@pytest.mark.cases(rest=None, integration=["transposed-no jit", "convolution-no jit"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.integration if n in RARE else ()) for n in TRANSFORMS],
)
@pytest.mark.parametrize("form", PAIRS)
def test_it_is_that_of_lax_under(form, name, x64):
    def outcomes(*arrays):
        return [
            TRANSFORMS[name](lambda w, x, f=f: (jnp.tanh(f(x, w)) ** 2).sum(), *arrays)
            for f in PAIRS[form]
        ]

    compiled = outcomes if name == "no jit" else jax.jit(outcomes)
    assert tree_allclose(*compiled(W, WS, X), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("sizes", "factors"),
    [*((s, "float32") for s in SIZES), (SIZES[1], "bfloat16"), (SIZES[3], "bfloat16")],
    ids=lambda s: s if isinstance(s, str) else "x".join(map(str, s)),
)
def test_the_form_of_an_accelerator_is_that_of_a_cpu(sizes, factors):
    """The three maps by lax's convolution, and by products."""
    (height, width, channels, features, kernel, stride) = sizes
    rows = _same(height, kernel, stride)
    columns = _same(width, kernel, stride)
    geometry = forms.Geometry(
        (height, width),
        (rows[0], columns[0]),
        (kernel, kernel),
        (stride, stride),
        (rows[1], columns[1]),
    )
    x = jnp.asarray(normal(0, 2, height, width, channels), jnp.float32)
    y = jnp.asarray(normal(1, 2, *geometry.out, features), jnp.float32)
    w = jnp.asarray(normal(2, kernel, kernel, channels, features), jnp.float32)
    out = jnp.dtype("float32")
    for a, b, by_product, by_lax in (
        (x, w, forms.convolve_by_product, forms.convolve_by_lax),
        (y, w, forms.spread_by_product, forms.spread_by_lax),
        (x, y, forms.correlate_by_product, forms.correlate_by_lax),
    ):
        (found, expected) = (
            jax.jit(form, static_argnums=(2, 3, 4))(a, b, geometry, jnp.dtype(factors), out)
            for form in (by_product, by_lax)
        )
        assert found.dtype == expected.dtype == out
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_a_cpu_has_products_alone_and_other_platforms_convolutions(name):
    """Forward and both gradients under two `vmap`s: three products, each of two matrices; or three
    convolutions.
    """
    (layer, _) = pair(name, 3, 3, 2)
    params = layer.init(jax.random.key(0), X[0, 0])
    over = jax.vmap(jax.vmap(value(layer), (None, 0)), (None, 0))
    gradient = jax.jit(jax.grad(lambda params, x: over(params, x).sum(), (0, 1)))
    traced = gradient.trace(params, X)
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert text.count("stablehlo.convolution") == 0
    contracted = re.findall(r"contracting_dims = \[([\d, ]*)\]", text)
    assert len(contracted) == 3
    assert all("," not in axes for axes in contracted)
    assert "batching_dims" not in text
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == 3
        assert text.count("stablehlo.dot_general") == 0


def test_factors_are_rounded_and_sums_are_not():
    """1,025 images of one pixel: each factor is one of bfloat16, the gradient in the kernel is a
    sum of float32.
    """
    images = jnp.ones((1025, 1, 1, 1))
    options = dict(strides=(2, 2), factors=jnp.bfloat16, out=jnp.bfloat16)
    for form in (convolution, transposed_convolution):
        kernel = jnp.full((1, 1, 1, 1), 1 + 2.0**-12)
        outputs = form(images, kernel, **options)
        assert outputs.dtype == jnp.bfloat16
        np.testing.assert_array_equal(outputs[:, 0, 0, 0], 1.0)

        def total(w, form=form):
            return jax.vmap(lambda x: form(x, w, **options))(images).sum(dtype=jnp.float32)

        gradient = jax.jit(jax.grad(total))(kernel)
        assert gradient.dtype == jnp.float32
        np.testing.assert_array_equal(gradient, 1025.0)
