"""The planar flow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.families._flow import Bijection, make_family
from vi_jax.families._solve import attach_derivatives, find_root
from vi_jax.types import Array, Family, Params

_SHIFT = float(np.log(np.e - 1.0))


def planar(example: Any, *, num_layers: int = 8) -> Family:
    """f(z) = z + u^ tanh(w'z + b), log |det| = log |1 + w'u^ tanh'(w'z + b)| (Rezende & Mohamed
    2015, eq. 10 to 12).

    Invertible because u^ = u + [m(w'u) - w'u] w / |w|^2 has w'u^ = m(w'u) > -1 (appendix A.1).
    Their m(x) = -1 + softplus(x) is here -1 + softplus(x + log(e - 1)), which is 0 at 0, so that u
    = 0 is the identity. The inverse is one scalar root, w'z.

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_layers: L.

    Returns:
      A Family of parameters {"loc": [D], "log_scale": [D], "layers": {"u", "w": [L, D], "bias":
      [L]}}, all put out by an encoder.

    Raises:
      ValueError: there are no latents, some are not real, or there are no layers.
    """

    def init_layer(key: Array, size: int) -> Params:
        key_u, key_w = jax.random.split(key)
        return {
            "u": 0.01 * jax.random.normal(key_u, (size,)),
            "w": jax.random.normal(key_w, (size,)) / size**0.5,
            "bias": jnp.zeros(()),
        }

    return make_family(
        "planar", example, init_layer, lambda size: LAYER, num_layers=num_layers, shared=()
    )


def _direction(params: Params) -> tuple[Array, Array]:
    """u^ [D] and w'u^ + 1 = softplus(...), positive."""
    u = params["u"]
    w = params["w"]
    along = jnp.sum(w * u)
    positive = jax.nn.softplus(along + _SHIFT)
    return u + (positive - 1.0 - along) * w / (jnp.sum(w**2) + jnp.finfo(w.dtype).tiny), positive


def _log_det(positive: Array, height: Array) -> Array:
    # 1 + (positive - 1) (1 - t^2) with t = tanh: a sum of two terms that are not negative
    return jnp.log(height**2 + positive * (1.0 - height**2) + jnp.finfo(height.dtype).tiny)


def _forward(params: Params, x: Array) -> tuple[Array, Array]:
    u_hat, positive = _direction(params)
    height = jnp.tanh(jnp.sum(params["w"] * x) + params["bias"])
    return x + u_hat * height, _log_det(positive, height)


def _residual(along: Array, args: tuple[Array, Array, Array]) -> Array:
    slope, bias, target = args
    return along + slope * jnp.tanh(along + bias) - target


def _newton(along: Array, args: tuple[Array, Array, Array]) -> Array:
    slope, bias, _ = args
    return along - _residual(along, args) / (1.0 + slope * (1.0 - jnp.tanh(along + bias) ** 2))


def _inverse(params: Params, y: Array) -> tuple[Array, Array]:
    u_hat, positive = _direction(params)
    slope = positive - 1.0
    target = jnp.sum(params["w"] * y)
    args = (slope, params["bias"], target)
    # |tanh| < 1
    root = find_root(_residual, args, target - jnp.abs(slope), target + jnp.abs(slope))
    height = jnp.tanh(attach_derivatives(_newton, args, root) + params["bias"])
    return y - u_hat * height, _log_det(positive, height)


LAYER = Bijection(_forward, _inverse)
