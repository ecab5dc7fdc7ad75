"""Likelihoods of pixel values by mixtures whose components the channels of a pixel share."""

import jax.numpy as jnp

from vi_jax.distributions import LogisticMixture
from vi_jax.models.likelihoods._likelihood import Likelihood, no_parameters
from vi_jax.types import Array, Params

MIN_LOG_SCALE = -7.0  # of what a scale starts at
NUM_COLOURS = 3


def logistic_mixture(
    num_levels: int = 256, *, num_components: int = 5, num_channels: int = 1
) -> Likelihood:
    """x in the levels 0..num_levels - 1 by a mixture of rounded logistics, the likelihood of
    PixelCNN++ (Salimans et al. 2017, sec. 2.1 and 2.2) given z: of three channels, images [..., 3],
    those of a pixel share the component, and green depends on red and blue on both; of one, each
    element has a mixture of its own.

    log p(x) / (D_x log 2) is bits per dimension. The components start spread evenly over the
    levels.

    Args:
      num_levels: L.
      num_components: K.
      num_channels: 1 or 3.

    Raises:
      ValueError: there is no component, or fewer than 2 levels, or another number of channels, or
        (from `init`) x has not so many along its last axis.
    """
    if num_components < 1 or num_levels < 2 or num_channels not in (1, NUM_COLOURS):
        raise ValueError(
            "logistic_mixture expects num_components of at least 1, num_levels of at least 2 and "
            f"num_channels 1 or 3; got {num_components}, {num_levels} and {num_channels}."
        )
    is_colour = num_channels == NUM_COLOURS
    centre = (num_levels - 1) / 2.0
    places = jnp.linspace(-1.0, 1.0, 2 * num_components + 1)[1::2]  # middles of K equal parts

    def init(x_shape: tuple[int, ...]) -> Params:
        if is_colour and x_shape[-1] != NUM_COLOURS:
            raise ValueError(
                f"logistic_mixture of 3 channels expects images [..., 3]; got x_shape {x_shape}. "
                "Take num_channels=1."
            )
        return no_parameters(x_shape)

    def make(params: Params, outputs: Array) -> LogisticMixture:
        del params
        shape = outputs.shape[:-1]
        rows = outputs.reshape(-1, num_channels, outputs.shape[-1])
        parts = jnp.split(rows, rows.shape[-1] // num_components, -1)  # [N, C, K] each
        logits = parts[0].sum(1)
        loc = centre * (1.0 + places + parts[1])
        scale = num_levels * jnp.exp(jnp.maximum(parts[2], MIN_LOG_SCALE) - 3.0)
        coupling = _coupled(jnp.tanh(parts[3])) if is_colour else None
        return LogisticMixture(logits, loc, scale, coupling, num_levels=num_levels, shape=shape)

    num_outputs = (4 if is_colour else 3) * num_components
    return Likelihood(num_outputs, init, make, support="levels", scale=1.0 / (num_levels - 1))


def _coupled(a: Array) -> Array:
    """[N, 3, K], of green by red, blue by red and blue by green, as matrices [N, 3, 3, K]."""
    (green_by_red, blue_by_red, blue_by_green) = (a[:, number] for number in range(NUM_COLOURS))
    none = jnp.zeros_like(green_by_red)
    red = jnp.stack([none, none, none], 1)
    green = jnp.stack([green_by_red, none, none], 1)
    blue = jnp.stack([blue_by_red, blue_by_green, none], 1)
    return jnp.stack([red, green, blue], 1)
