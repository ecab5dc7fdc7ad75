"""The Gaussian by the triangular factor of its precision, where zeros are independences."""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from vi_jax import linalg

Array = jax.Array


class PrecisionNormal(dist.Distribution):
    """N(m, (L L')^-1) by its mean m and the lower factor L of the precision, not of the covariance.

        z = m + L'^-1 e with e ~ N(0, I)
        log q(z) = -1/2 |L' (z - m)|^2 + sum_j log L_jj - D/2 log 2 pi

    An L of bandwidth b is a Gaussian Markov chain of order b (Archer et al. 2015, Tan & Nott 2018):
    each z_j given the later ones depends on the next b alone. No covariance is formed but in
    `covariance_matrix` and `variance`. Numpyro's MultivariateNormal(precision_matrix=...) inverts
    at once and has lost the band.

    Args:
      loc: m, [..., D].
      precision_tril: L, [..., D, D], lower triangular with a positive diagonal.
    """

    arg_constraints = {"loc": constraints.real_vector, "precision_tril": constraints.lower_cholesky}  # noqa: RUF012
    support = constraints.real_vector
    reparametrized_params = ["loc", "precision_tril"]  # noqa: RUF012

    def __init__(
        self, loc: Array, precision_tril: Array, *, validate_args: bool | None = None
    ) -> None:
        size = jnp.shape(loc)[-1:]
        square = jnp.shape(precision_tril)[-2:]
        if not size or square != 2 * size:
            raise ValueError(
                "PrecisionNormal expects loc of shape [..., D] and precision_tril of shape [..., "
                "D, D]; "
                f"got {jnp.shape(loc)} and {jnp.shape(precision_tril)}."
            )
        batch_shape = jnp.broadcast_shapes(jnp.shape(loc)[:-1], jnp.shape(precision_tril)[:-2])
        self.loc = jnp.broadcast_to(loc, (*batch_shape, *size))
        self.precision_tril = jnp.broadcast_to(precision_tril, (*batch_shape, *square))
        super().__init__(batch_shape, size, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Nats, of the batch shape."""
        white = jnp.einsum("...ij,...i->...j", self.precision_tril, value - self.loc)
        log_det = jnp.log(jnp.diagonal(self.precision_tril, axis1=-2, axis2=-1)).sum(-1)
        return log_det - 0.5 * (white**2).sum(-1) - 0.5 * white.shape[-1] * math.log(2.0 * math.pi)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """m + L'^-1 e, [*sample_shape, *batch_shape, D], reparameterised."""
        noise = jax.random.normal(key, (*sample_shape, *self.loc.shape), self.loc.dtype)
        tril = jnp.broadcast_to(self.precision_tril, (*noise.shape, noise.shape[-1]))
        gap = linalg.solve_triangular(tril, noise[..., None], trans=1, lower=True)
        return self.loc + gap[..., 0]

    @property
    def mean(self) -> Array:
        """m, [..., D]."""
        return self.loc

    @property
    def scale_factor(self) -> Array:
        """L'^-1, an upper triangular square root of the covariance, [..., D, D]."""
        eye = jnp.broadcast_to(
            jnp.eye(self.event_shape[0], dtype=self.precision_tril.dtype), self.precision_tril.shape
        )
        return linalg.solve_triangular(self.precision_tril, eye, trans=1, lower=True)

    @property
    def variance(self) -> Array:
        """The diagonal of the covariance, [..., D]."""
        return (self.scale_factor**2).sum(-1)

    @property
    def precision_matrix(self) -> Array:
        """L L', [..., D, D]."""
        return self.precision_tril @ jnp.swapaxes(self.precision_tril, -1, -2)

    @property
    def covariance_matrix(self) -> Array:
        """(L L')^-1, [..., D, D]."""
        factor = self.scale_factor
        return factor @ jnp.swapaxes(factor, -1, -2)

    def entropy(self) -> Array:
        """D/2 log(2 pi e) - sum_j log L_jj, nats."""
        log_det = jnp.log(jnp.diagonal(self.precision_tril, axis1=-2, axis2=-1)).sum(-1)
        return 0.5 * self.event_shape[0] * (1.0 + math.log(2.0 * math.pi)) - log_det
