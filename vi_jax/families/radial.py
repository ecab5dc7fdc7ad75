"""The radial flow."""

from typing import Any

import jax
import jax.numpy as jnp

from vi_jax.families._flow import Bijection, make_family
from vi_jax.types import Array, Family, Params


def radial(example: Any, *, num_layers: int = 8) -> Family:
    """f(z) = z + beta^ (z - c) / (alpha + r), r = |z - c|, log |det| = (D - 1) log(1 + beta^ /
    (alpha + r)) + log(1 + beta^ alpha / (alpha + r)^2) (Rezende & Mohamed 2015, eq. 14).

    Invertible because beta^ > -alpha (appendix A.2). Their beta^ = -alpha + softplus(beta) is here
    -alpha + softplus(beta + softplus^-1(alpha)), which is 0 at beta = 0, so that this is the
    identity. The inverse solves a quadratic equation in r.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers": {"centre": [L, D],
      "log_alpha", "beta": [L]}}, all put out by an encoder.

    Raises:
      ValueError: there are no latents, some are not real, or there are no layers.
    """

    def init_layer(key: Array, size: int) -> Params:
        key_centre, key_beta = jax.random.split(key)
        centre = jax.random.normal(key_centre, (size,))
        return {
            "centre": centre,
            "log_alpha": jnp.zeros(()),
            "beta": 0.01 * jax.random.normal(key_beta),
        }

    return make_family(
        "radial", example, init_layer, lambda size: LAYER, num_layers=num_layers, shared=()
    )


def _alpha_and_sum(params: Params) -> tuple[Array, Array]:
    """alpha, and alpha + beta^ = softplus(beta + softplus^-1(alpha)), both positive."""
    alpha = jnp.exp(params["log_alpha"])
    inverse = alpha + jnp.log(-jnp.expm1(-alpha))
    return alpha, jax.nn.softplus(params["beta"] + inverse)


def _norm(gap: Array) -> Array:
    """|gap|, with gradient 0 at 0."""
    square = jnp.sum(gap**2)
    return jnp.where(square > 0.0, jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)


def _stretch(alpha: Array, total: Array, r: Array, size: int) -> tuple[Array, Array]:
    """1 + beta^ / (alpha + r), by which a radius grows, and log |det|; sums of positive terms."""
    stretch = (total + r) / (alpha + r)
    along = (alpha * total + 2.0 * alpha * r + r**2) / (alpha + r) ** 2
    return stretch, (size - 1) * jnp.log(stretch) + jnp.log(along)


def _forward(params: Params, x: Array) -> tuple[Array, Array]:
    alpha, total = _alpha_and_sum(params)
    gap = x - params["centre"]
    stretch, log_det = _stretch(alpha, total, _norm(gap), x.size)
    return params["centre"] + stretch * gap, log_det


def _inverse(params: Params, y: Array) -> tuple[Array, Array]:
    alpha, total = _alpha_and_sum(params)
    gap = y - params["centre"]
    far = _norm(gap)
    # r (r + total) = far (r + alpha), the positive root, by the form of it that subtracts nothing
    half = 0.5 * (far - total)
    root = _norm(
        jnp.stack([half, jnp.sqrt(alpha) * jnp.sqrt(jnp.where(far > 0.0, far, 1.0)) * (far > 0.0)])
    )
    r = jnp.where(half > 0.0, half + root, far * alpha / jnp.where(half > 0.0, 1.0, root - half))
    stretch, log_det = _stretch(alpha, total, r, y.size)
    return params["centre"] + gap / stretch, log_det


LAYER = Bijection(_forward, _inverse)
