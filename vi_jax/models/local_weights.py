"""Local reparameterisation: a function of Gaussian weights whose noise is drawn after each product
of a vector and a matrix of them (Kingma, Salimans & Welling 2015).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from vi_jax.models._product import product_p
from vi_jax.types import Array, Params

SMALLEST_VARIANCE = 1e-20  # of an outcome, so that its root has a gradient where the input is 0


def at_local_weights(
    key: Array, function: Callable[[Params], Any], mean: Params, log_scale: Params, shared: Params
) -> Any:
    """function(w) of one example with w ~ N(mean, diag(e^(2 log_scale))), with noise of its own.

    For h [n] and a matrix W [n, m] of independent weights, h W is N(h M, h^2 S^2), and that is what
    is sampled: m numbers for each example in place of n m for the batch, and a gradient of less
    variance, since examples do not share their noise. Vectors, such as biases, are sampled for
    each example. A matrix that is used in another way than in one such product (convolutions,
    loops) takes the sample that its batch shares.

    Args:
      key: of the example.
      function: of the weights, a pytree of arrays; closes over the example.
      mean, log_scale: of q(w), pytrees of one structure.
      shared: a sample of q(w) of the same structure, for what has no local noise.

    Raises:
      ValueError: a matrix has two such products in one example, which would have to share a
        sample.
    """
    leaves, structure = jax.tree.flatten(mean)
    scales = jax.tree.leaves(log_scale)
    drawn = jax.tree.leaves(shared)

    def of_leaves(*leaves: Array) -> Any:
        return function(jax.tree.unflatten(structure, leaves))

    closed, shape = jax.make_jaxpr(of_leaves, return_shape=True)(*leaves)
    keys = jax.random.split(key, max(len(leaves), 1))
    weights = [_Weight(*each) for each in zip(keys, leaves, scales, drawn, strict=False)]
    found = _run(closed.jaxpr, closed.consts, weights)
    return jax.tree.unflatten(jax.tree.structure(shape), found)


class _Weight:
    """One array of Gaussian weights while a function of it is run."""

    def __init__(self, key: Array, mean: Array, log_scale: Array, shared: Array) -> None:
        self.key = key
        self.mean = mean
        self.log_scale = log_scale
        self.shared = shared
        self.has_product = False

    def times(self, x: Array, params: dict[str, Any]) -> Array:
        """A sample of x W for x [n]: mean x M, variance x^2 S^2."""
        if self.has_product:
            raise ValueError(
                f"local noise is drawn for one product of each matrix of weights in an example; a "
                f"matrix {self.mean.shape} has two. Take noise='shared'."
            )
        self.has_product = True
        loc = product_p.bind(x, self.mean, **params)
        var = product_p.bind(x * x, jnp.exp(2.0 * self.log_scale), **params)
        noise = jax.random.normal(self.key, loc.shape, loc.dtype)
        return loc + jnp.sqrt(var + SMALLEST_VARIANCE) * noise

    @functools.cached_property
    def sample(self) -> Array:
        """Of the example for a vector, of its batch for a matrix."""
        if self.mean.ndim > 1:
            return self.shared
        noise = jax.random.normal(self.key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outcomes of a program some of whose inputs are `_Weight`."""
    held: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    held |= dict(zip(jaxpr.invars, args, strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else held[var]

    for eqn in jaxpr.eqns:
        found = _with_noise(eqn, [read(var) for var in eqn.invars])
        if found is None:
            names = list(dict.fromkeys(v for v in eqn.invars if not isinstance(v, Literal)))
            alone = jaxpr.replace(constvars=[], invars=names, outvars=eqn.outvars, eqns=[eqn])
            found = jax.core.eval_jaxpr(alone, [], *(_plain(held[var]) for var in names))
        held |= dict(zip(eqn.outvars, found, strict=True))
    return [_plain(read(var)) for var in jaxpr.outvars]


def _with_noise(eqn: Any, inputs: list[Any]) -> Sequence[Any] | None:
    """The outcomes of an operation that weights enter as such; None of one that takes samples."""
    is_random = [isinstance(value, _Weight) for value in inputs]
    if any(is_random) and eqn.primitive.name in ("jit", "pjit"):
        inner = eqn.params["jaxpr"]
        return _run(inner.jaxpr, inner.consts, inputs)
    if is_random == [False, True] and eqn.primitive is product_p and inputs[0].ndim == 1:
        return [inputs[1].times(inputs[0], eqn.params)]
    return None


def _plain(value: Any) -> Any:
    return value.sample if isinstance(value, _Weight) else value
