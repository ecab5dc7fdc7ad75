"""The conditional VAE: images given their labels."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vi_jax.models import likelihoods, networks
from vi_jax.models._emission import check_shape, emission, from_emission
from vi_jax.models._layers import as_float, diagonal
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params


def conditional_vae(
    x_shape: Sequence[int],
    num_classes: int,
    *,
    num_latents: int,
    hidden: Sequence[int] = (500,),
    activation: Callable[[Array], Array] = nn.tanh,
    likelihood: Likelihood | None = None,
    output_bias: Any = None,
) -> Model:
    """p(image | label) with the label in all networks: p(z | y), p(x | z, y), q(z | x, y) (Sohn et
    al. 2015, sec. 4.1).

    An example is {"image": [*x_shape], "label": whole number in 0..C - 1}. The ELBO and log p are
    of the image given the label; log p(image, label) adds log p(label).

    Args:
      x_shape: of one image.
      num_classes: C.
      num_latents: D.
      hidden: widths from x towards z.
      activation: between layers.
      likelihood: of the image; Bernoulli if not given.
      output_bias: where the decoder's last bias starts, see `networks.mlp_decoder`.

    Returns:
      A Model of parameters {"encoder", "prior", "decoder", "likelihood"}; the prior is N(0, I) for
      every label at the start. `decode` and `generate` are over whole examples, the label copied.
    """
    x_shape = tuple(x_shape)
    if num_latents < 1 or num_classes < 1:
        raise ValueError(
            "conditional_vae expects num_latents and num_classes of at least 1; got "
            f"{num_latents} and {num_classes}."
        )
    likelihood = likelihoods.bernoulli() if likelihood is None else likelihood
    num_inputs = math.prod(x_shape) + num_classes
    encoder = networks.mlp_encoder((num_inputs,), 2 * num_latents, hidden, activation)
    decoder = networks.mlp_decoder(
        x_shape,
        likelihood.num_outputs,
        num_latents + num_classes,
        tuple(hidden)[::-1],
        activation,
        output_bias,
    )
    pixels = emission(x_shape, decoder, likelihood)

    def init(key: Array) -> Params:
        key_encoder, key_pixels = jax.random.split(key)
        return {
            "encoder": encoder.init(key_encoder),
            "prior": jnp.zeros((num_classes, 2 * num_latents)),
            **pixels.init(key_pixels),
        }

    def with_label(row: Array, x: Mapping[str, Array]) -> Array:
        return jnp.concatenate([row, jax.nn.one_hot(x["label"], num_classes, dtype=row.dtype)])

    def guide(params: Params, x: Mapping[str, Array]) -> Any:
        check_shape(x["image"], x_shape)
        seen = with_label(as_float(x["image"]).ravel(), x)
        return diagonal(encoder.apply(params["encoder"], seen))

    return from_emission(
        init,
        guide,
        lambda params, x: diagonal(params["prior"][x["label"]]),
        pixels,
        kl="closed",
        h_of=lambda x, z: with_label(z, x),
        pixels_of=lambda x: x["image"],
        whole=lambda p, x: WithContext(p, {"label": x["label"]}, "image"),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WithContext:
    """A distribution over one part of an example, with the rest of the example beside it: samples
    are whole examples, `mean` and `log_prob` are of the part.
    """

    base: Any  # over the part
    context: Mapping[str, Any]  # the other leaves
    name: str = field(metadata={"static": True})  # of the part

    @property
    def mean(self) -> Array:
        """That of the part."""
        return self.base.mean

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Any]:
        """Whole examples, leaves [*sample_shape, ...]."""
        copied = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*sample_shape, *jnp.shape(leaf))), self.context
        )
        return {**copied, self.name: self.base.sample(key, sample_shape)}

    def log_prob(self, value: Mapping[str, Any]) -> Array:
        """log p(part | context), nats, as the base has it."""
        return self.base.log_prob(value[self.name])
