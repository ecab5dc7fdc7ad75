"""The model that `benchmarks.tables` fits, composed of vi_jax's parts: factor analysis, moved by
networks.

    z ~ N(0, I),  eta = W z + b + f(z)
    x_j | z ~ normal or t around eta_j, of a scale s_j; or a count of mean exp(eta_j)

The guide is the posterior that z has in closed form if x_j, or log(x_j + 1/2) of counts, is normal
around (W z + b)_j with the scale s_j, given the entries that are observed; an encoder moves it in
its own coordinates. So the masks are exact, and with f and the encoder at 0 the guide is the
posterior of normal x_j.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from vi_jax import models
from vi_jax.distributions import NegativeBinomial, Poisson, StudentT
from vi_jax.gaussian import VectorGuide, log_standard_normal
from vi_jax.models import networks
from vi_jax.types import Array, Model, Params


class Shape(NamedTuple):
    """What is static of a factor model."""

    num_latents: int
    kind: str = "student_t"  # or gaussian, poisson, negative_binomial
    hidden: int = 32  # width of the networks' two layers
    is_linear: bool = False  # W z + b alone
    has_encoder: bool = True  # else the guide is the closed form alone
    is_heteroscedastic: bool = False  # f moves scales too
    is_complete: bool = False  # nothing is missing: one covariance serves all rows
    min_scale: float = 0.01


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PrecisionGuide(VectorGuide):
    """N(z | loc, (L S^-2 L')^-1) by the factor L of its precision, and S = diag(e^log_scale)."""

    loc: Array  # [K]
    factor: Array  # L [K, K], lower
    inverse: Array  # L^-1
    log_scale: Array  # [K]

    def transport(self, eps: Array) -> Array:
        return self.loc + (jnp.exp(self.log_scale) * eps) @ self.inverse

    def log_density(self, z: Array) -> Array:
        eps = ((z - self.loc) @ self.factor) * jnp.exp(-self.log_scale)
        log_det = jnp.log(jnp.diagonal(self.factor)).sum() - self.log_scale.sum()
        return log_standard_normal(eps) + log_det


@functools.lru_cache
def factor_vae(num_columns: int, shape: Shape) -> Model:
    """The model of rows {"values": [D], "observed": bool [D]}; one object for one shape, so that
    programs that are compiled for it serve again.
    """
    num_latents = shape.num_latents
    hidden = (shape.hidden, shape.hidden)
    encoder = networks.mlp_encoder(
        (2 * num_columns + num_latents,), 2 * num_latents, hidden, nn.silu
    )
    # the encoder of z: as its last layer starts small, so does f
    decoder = networks.mlp_encoder((num_latents,), 2 * num_columns, hidden, nn.silu)

    def init(key: Array) -> Params:
        key_start, key_encoder, key_decoder = jax.random.split(key, 3)
        params = {
            "weights": 0.05 * jax.random.normal(key_start, (num_columns, num_latents)),
            "bias": jnp.zeros(num_columns),
            "log_scale": jnp.full(num_columns, -1.0),
        }
        if shape.has_encoder:
            params["encoder"] = encoder.init(key_encoder)
        if not shape.is_linear:
            params["decoder"] = decoder.init(key_decoder)
        if shape.kind in _SHAPES:
            params["log_shape"] = jnp.full(num_columns, jnp.log(_SHAPES[shape.kind]))
        return params

    def guide(params: Params, x: Any) -> PrecisionGuide:
        return _guide(shape, encoder, params, x)

    def decode(params: Params, x: Any, z: Array) -> Any:
        eta = z @ params["weights"].T + params["bias"]
        log_scale = params["log_scale"]
        if not shape.is_linear:
            moves = decoder.apply(params["decoder"], z).reshape(2, num_columns)
            eta = eta + moves[0]
            if shape.is_heteroscedastic:
                log_scale = log_scale + 2.0 * jnp.tanh(0.5 * moves[1])
        scale = shape.min_scale + jnp.exp(log_scale)
        return _of_kind(shape.kind, eta, scale, params.get("log_shape"))

    def log_lik(params: Params, x: Any, z: Array) -> Array:
        return jnp.where(x["observed"], decode(params, x, z).log_prob(x["values"]), 0.0).sum()

    def prior(params: Params, x: Any) -> Any:
        return dist.Normal(0.0, 1.0).expand([num_latents]).to_event(1)

    return models.from_densities(init, guide, prior, decode, log_lik, kl="drawn")


_SHAPES = {"student_t": 8.0, "negative_binomial": 30.0}  # degrees of freedom, dispersion: starts


def _of_kind(kind: str, eta: Array, scale: Array, log_shape: Array | None) -> Any:
    if kind == "student_t":
        return StudentT(2.0 + jnp.exp(log_shape), eta, scale)
    if kind == "negative_binomial":
        return NegativeBinomial(eta, log_shape)
    return Poisson(eta) if kind == "poisson" else dist.Normal(eta, scale)


def _guide(shape: Shape, encoder: networks.Network, params: Params, x: Any) -> PrecisionGuide:
    weights = params["weights"]
    precision = (shape.min_scale + jnp.exp(params["log_scale"])) ** -2.0
    seen = x["observed"].astype(weights.dtype)
    values = x["values"]
    if shape.kind in ("poisson", "negative_binomial"):
        values = jnp.log(values + 0.5)
    residual = jnp.where(x["observed"], values - params["bias"], 0.0)
    of_rows = precision if shape.is_complete else precision * seen
    eye = jnp.eye(shape.num_latents)
    factor = jnp.linalg.cholesky(eye + (weights.T * of_rows) @ weights)
    inverse = solve_triangular(factor, eye, lower=True)
    loc = ((precision * residual) @ weights @ inverse.T) @ inverse
    if not shape.has_encoder:
        return PrecisionGuide(loc, factor, inverse, jnp.zeros_like(loc))
    features = jnp.concatenate([jnp.arcsinh(residual), seen, loc])
    moves = encoder.apply(params["encoder"], features).reshape(2, shape.num_latents)
    log_scale = jnp.clip(moves[1], -3.0, 3.0)
    return PrecisionGuide(loc + moves[0] @ inverse, factor, inverse, log_scale)
