"""Many equal layers of latents as one density, by a scan: compile time does not grow with depth.

def layer(params, h):  # of one layer: its density, and what goes on to the next
    p = normal(*network(params, h))
    return p, lambda z: h + linear(params, z)

stack = Stack(params, h, layer)  # params: leaves [L, ...]
h = stack.end(site("z", stack))  # z [L, ...]
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from vi_jax.distributions.shapes import sample_over
from vi_jax.distributions.transports import from_noise, to_noise

Array = jax.Array
# (params of one layer, carry) -> (density of its latents, z -> the next carry)
Layer = Callable[[Any, Any], tuple[Any, Callable[[Any], Any]]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stack:
    """The density of z [L, ...], the latents of L equal layers, each given those before it: a site
    of a `Program`, or a guide of its own.

    `layer(params, carry)` is that of one layer; `params` has leaves [L, ...]. The carry has one
    structure, shape and dtype throughout, as in `jax.lax.scan`.
    """

    params: Any
    carry: Any  # what the first layer is given
    layer: Layer = field(metadata={"static": True})

    batch_shape = ()

    @property
    def num_layers(self) -> int:
        """L."""
        return jax.tree.leaves(self.params)[0].shape[0]

    @property
    def has_rsample(self) -> bool:
        """Whether the samples of a layer are reparameterised."""
        kinds: list[bool] = []

        def first(params: Any, carry: Any) -> None:
            p, _ = self.layer(jax.tree.map(lambda leaf: leaf[0], params), carry)
            kinds.append(getattr(p, "has_rsample", True))

        jax.eval_shape(first, self.params, self.carry)
        return all(kinds)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples, leaves [*sample_shape, L, ...]."""

        def one(key: Array) -> Any:
            # as numbers: JAX's check takes a key of a scan inside a vmap for a used one
            impl = jax.random.key_impl(key)
            numbers = jax.random.key_data(jax.random.split(key, self.num_layers))
            sample = lambda p, n: p.sample(jax.random.wrap_key_data(n, impl=impl))  # noqa: E731
            return self._scan(sample, numbers)[1]

        return sample_over(one, key, sample_shape)

    def log_prob(self, value: Any) -> Array:
        """log p(z) of one z, nats: the sum over layers."""
        return self.log_probs(value).sum()

    def log_probs(self, value: Any) -> Array:
        """log p of each layer given those before it, nats, [L]."""
        return self.each(value, lambda p, z: p.log_prob(z))

    def each(self, value: Any, of_layer: Callable[[Any, Any], Any]) -> Any:
        """of_layer(density, z) of each layer given those before it, leaves [L, ...]."""

        def body(carry: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            params, z = inputs
            p, after = self.layer(params, carry)
            return after(z), of_layer(p, z)

        return jax.lax.scan(body, self.carry, (self.params, value))[1]

    def end(self, value: Any) -> Any:
        """The carry after the last layer, at one z."""
        return self._scan(lambda p, z: z, value)[0]

    def to_noise(self, value: Any) -> Any:
        """eps of one z: `from_noise` undone."""
        return self.each(value, to_noise)

    def from_noise(self, eps: Any) -> Any:
        """z of one eps, differentiable in all parameters; a later layer by those before it too."""
        return self._scan(from_noise, eps)[1]

    def _scan(self, at_layer: Callable[[Any, Any], Any], inputs: Any) -> tuple[Any, Any]:
        """(carry after the last layer, z), where z of a layer is at_layer(density, its input)."""

        def body(carry: Any, given: tuple[Any, Any]) -> tuple[Any, Any]:
            params, each = given
            p, after = self.layer(params, carry)
            z = at_layer(p, each)
            return after(z), z

        return jax.lax.scan(body, self.carry, (self.params, inputs))


def each_pair(q: Stack, p: Stack, value: Any, of_layer: Callable[[Any, Any, Any], Any]) -> Any:
    """of_layer(density of q, density of p, z) of each layer at one z, leaves [L, ...].

    Raises:
      ValueError: q and p have different numbers of layers.
    """
    if q.num_layers != p.num_layers:
        raise ValueError(
            f"two Stacks of one site have as many layers; got {q.num_layers} and {p.num_layers}."
        )

    def body(carries: tuple[Any, Any], inputs: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        params_q, params_p, z = inputs
        density_q, after_q = q.layer(params_q, carries[0])
        density_p, after_p = p.layer(params_p, carries[1])
        found = of_layer(density_q, density_p, z)
        return (after_q(z), after_p(z)), found

    return jax.lax.scan(body, (q.carry, p.carry), (q.params, p.params, value))[1]
