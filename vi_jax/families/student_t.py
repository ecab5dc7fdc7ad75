"""Independent Student-t coordinates, with tails that are learned."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import VectorGuide
from vi_jax.types import Array, Family, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StudentT(VectorGuide):
    """prod_j t(z_j | nu_j, mu_j, sigma_j)."""

    loc: Array  # [D]
    log_scale: Array  # [D]
    df: Array  # nu [D], above 1

    @property
    def mean(self) -> Array:
        return self.loc

    @property
    def variance(self) -> Array:
        """sigma^2 nu / (nu - 2), infinite where nu <= 2, [D]."""
        return jnp.where(
            self.df > 2.0,
            jnp.exp(2.0 * self.log_scale) * self.df / jnp.where(self.df > 2.0, self.df - 2.0, 1.0),
            jnp.inf,
        )

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]: a normal over the root of a gamma, whose gradient in nu is
        implicit (Figurnov et al. 2018).
        """
        key_normal, key_gamma = jax.random.split(key)
        shape = (*sample_shape, *self.event_shape)
        eps = jax.random.normal(key_normal, shape, self.loc.dtype)
        log_gamma = jax.random.loggamma(
            key_gamma, jnp.broadcast_to(0.5 * self.df, shape), dtype=self.loc.dtype
        )
        return self.loc + jnp.exp(self.log_scale + 0.5 * (jnp.log(0.5 * self.df) - log_gamma)) * eps

    def log_density(self, z: Array) -> Array:
        y = (z - self.loc) * jnp.exp(-self.log_scale)
        # log Beta(nu / 2, 1 / 2), where a difference of two log-gammas loses all digits at large nu
        log_norm = betaln(0.5 * self.df, 0.5) + 0.5 * jnp.log(self.df) + self.log_scale
        return jnp.sum(-0.5 * (self.df + 1.0) * jnp.log1p(y**2 / self.df) - log_norm)


def student_t(example: Any, *, df: float = 10.0) -> Family:
    """q(z) = prod_j t(z_j | nu_j, mu_j, sigma_j), z = mu + sigma eps sqrt(nu / v), v ~ chi^2(nu)
    (heavy-tailed guides: Domke & Sheldon 2018; the gradient in nu: Figurnov et al. 2018).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      df: nu where the parameters are 0; above 1, and every nu stays above 1, so that the mean is
        `loc`.

    Returns:
      A Family whose parameters are {"loc": [D], "log_scale": [D], "raw_df": [D]} with nu = 1 + (df
      - 1) softplus(raw_df) / log 2; zeros are the standard t with `df` degrees of freedom.

    Raises:
      ValueError: there are no latents, some are not real, or df is not above 1.
    """
    latents = read_latents("student_t", example)
    if not df > 1.0:
        raise ValueError(f"student_t expects df above 1, so that there is a mean; got {df}.")

    def init(key: Array) -> Params:
        del key  # starts at the neutral member, whatever the key
        zeros = jnp.zeros(latents.size)
        return {"loc": zeros, "log_scale": zeros, "raw_df": zeros}

    def guide(params: Params) -> Any:
        nu = 1.0 + (df - 1.0) / float(np.log(2.0)) * jax.nn.softplus(params["raw_df"])
        return latents.wrap(StudentT(params["loc"], params["log_scale"], nu))

    return Family(init, guide)
