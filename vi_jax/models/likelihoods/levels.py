"""Likelihoods of zeros and ones, classes and ordered levels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vi_jax.distributions import Bernoulli, DiscretizedLogistic, OrderedLogistic
from vi_jax.models.likelihoods._likelihood import Likelihood, filled, no_parameters
from vi_jax.types import Array, Params

MIN_LOG_SCALE = -30.0
MIN_GAP = 1e-3  # between thresholds: a level never seen in training keeps a probability


def bernoulli() -> Likelihood:
    """x in {0, 1} by its logits; grey levels in [0, 1] are read as probabilities of a one."""
    return Likelihood(
        1, no_parameters, lambda _, outputs: Bernoulli(outputs[..., 0]), support="binary"
    )


def discretized_logistic(num_levels: int = 256) -> Likelihood:
    """x in the levels 0..num_levels - 1 by a rounded logistic, location and scale of each pixel
    from the decoder (Salimans et al. 2017, eq. 2, one component). log p(x) / (D_x log 2) is bits
    per dimension. A scale is at least e^-30 of what it starts at: its gradient would overflow.
    """
    centre = (num_levels - 1) / 2.0

    def make(params: Params, outputs: Array) -> DiscretizedLogistic:
        del params
        loc = centre * (1.0 + outputs[..., 0])
        # starts at a twentieth of the range
        scale = num_levels * jnp.exp(jnp.maximum(outputs[..., 1], MIN_LOG_SCALE) - 3.0)
        return DiscretizedLogistic(loc, scale, num_levels)

    return Likelihood(2, no_parameters, make, support="levels", scale=1.0 / (num_levels - 1))


def categorical(num_levels: int = 256) -> Likelihood:
    """x in the levels 0..num_levels - 1 as unordered classes, logits from the decoder."""
    return Likelihood(
        num_levels,
        no_parameters,
        lambda _, outputs: dist.CategoricalLogits(outputs),
        support="levels",
        scale=1.0 / (num_levels - 1),
    )


def ordinal(num_levels: int, *, thresholds_init: Any = None) -> Likelihood:
    """x in the levels 0..num_levels - 1 by P(x <= k) = sigmoid(c_k - f(z)), with thresholds c
    trained, L - 1 for each element (the cumulative logit model; McCullagh 1980, eq. 2.4).

    c_0 is free and each gap to the next is softplus of a parameter plus 0.001, so that they stay in
    order and a level that training has not seen keeps a probability.

    Args:
      num_levels: L.
      thresholds_init: where c starts, ascending, [L - 1] or [*x_shape, L - 1]; by levels of one
        frequency if not given.

    Raises:
      ValueError: L is below 2, or the thresholds do not ascend.
    """
    if num_levels < 2:
        raise ValueError(f"ordinal needs num_levels of at least 2; got {num_levels}.")
    if thresholds_init is None:
        shares = np.arange(1, num_levels) / num_levels
        thresholds_init = np.log(shares) - np.log1p(-shares)
    start = np.asarray(thresholds_init, np.float64)
    gaps = np.maximum(np.diff(start, axis=-1), 2.0 * MIN_GAP) - MIN_GAP
    if start.shape[-1:] != (num_levels - 1,) or not np.all(np.diff(start, axis=-1) > 0):
        raise ValueError(
            f"ordinal needs {num_levels - 1} ascending thresholds, the last axis of "
            f"thresholds_init; got {thresholds_init}."
        )
    raw = np.concatenate([start[..., :1], gaps + np.log(-np.expm1(-gaps))], axis=-1)

    def init(x_shape: tuple[int, ...]) -> Params:
        return {"thresholds": filled(raw, (*x_shape, num_levels - 1))}

    def make(params: Params, outputs: Array) -> OrderedLogistic:
        return OrderedLogistic(outputs[..., 0], _ascending(params["thresholds"]))

    return Likelihood(1, init, make, support="levels", scale=1.0 / (num_levels - 1))


def _ascending(raw: Array) -> Array:
    """Thresholds [..., L - 1] from the first and the raw gaps."""
    gaps = jax.nn.softplus(raw[..., 1:]) + MIN_GAP
    return raw[..., :1] + jnp.concatenate(
        [jnp.zeros_like(raw[..., :1]), jnp.cumsum(gaps, axis=-1)], axis=-1
    )
