"""Sizes of programs before they run: the arrays and the matrix products in what JAX has traced, and
what XLA will allocate.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The convolution, its transpose and its gradient in the kernel, as vi_jax.models has them.
_CONVOLUTIONS = ("convolve", "spread", "correlate")
# Operations of XLA that read and write whole arrays; others are fused, and may never do.
_WHOLE = (
    *("dot_general", "rows_times_matrix", "conv_general_dilated", *_CONVOLUTIONS),
    *("sort", "cholesky", "triangular_solve", "eigh"),
)


def largest(function: Callable[..., Any], *shapes: Any) -> float:
    """Bytes that a program takes at least beside its arguments: those of its largest operation that
    reads and writes whole arrays, chunks as chunks.
    """
    return _largest(jax.make_jaxpr(function)(*shapes).jaxpr)


def products(function: Callable[..., Any], *shapes: Any) -> float:
    """Floating-point operations of a program's matrix products, those of its loops as often as they
    run.
    """
    return _products(jax.make_jaxpr(function)(*shapes).jaxpr)


def num_bytes(tree: Any) -> float:
    """Bytes of the arrays of a pytree, or of their shapes."""
    return float(sum(_size(leaf) for leaf in jax.tree.leaves(tree)))


def allocated(function: Callable[..., Any], *shapes: Any) -> float:
    """Bytes that XLA will allocate for a program, its arguments and results included; compiles
    it.
    """
    found = jax.jit(function).lower(*shapes).compile().memory_analysis()
    if found is None:  # of a backend that does not say
        return 0.0
    both = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return float(both + found.temp_size_in_bytes)


def _largest(jaxpr: Any) -> float:
    best = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _WHOLE:
            best = max(best, _arrays(eqn.invars) + _arrays(eqn.outvars))
        if eqn.primitive.name == "scan":  # its carry is updated in place
            stacked = eqn.outvars[eqn.params["num_carry"] :]
            best = max(best, _arrays(eqn.invars) + _arrays(stacked))
        elif eqn.primitive.name == "while":
            best = max(best, _arrays(eqn.invars))
        best = max([best, *(_largest(inner) for inner in _inside(eqn))])
    return best


def _products(jaxpr: Any) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            lengths = [eqn.invars[0].aval.shape[axis] for axis in contracted]
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(lengths)
        if eqn.primitive.name == "rows_times_matrix":  # of vi_jax.models
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * eqn.invars[1].aval.shape[0]
        if eqn.primitive.name in _CONVOLUTIONS:
            total += _products_of_convolution(eqn)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += times * sum(_products(inner) for inner in _inside(eqn))
    return total


def _products_of_convolution(eqn: Any) -> float:
    """Two for each tap of the kernel, channel and output of every window."""
    geometry = eqn.params["geometry"]
    shapes = [variable.aval.shape for variable in (*eqn.invars, *eqn.outvars)]
    # x [..., H, W, C], y [..., *geometry.out, O]
    (x, y) = {
        "convolve": (shapes[0], shapes[2]),
        "spread": (shapes[2], shapes[0]),
        "correlate": (shapes[0], shapes[1]),
    }[eqn.primitive.name]
    return 2.0 * math.prod(y) * math.prod(geometry.kernel) * x[-1]


def _inside(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield inner


def _arrays(variables: Any) -> float:
    """Bytes of variables, each once; constants in the text of a program count nothing."""
    distinct = {id(v): v for v in variables if not hasattr(v, "val")}
    return float(sum(_size(v.aval) for v in distinct.values()))


def _size(aval: Any) -> int:
    """Bytes of an array by its shape; a key is its words, and what is no array nothing."""
    if not hasattr(aval, "dtype"):
        return 0
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return 8 * math.prod(aval.shape)
    return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize
