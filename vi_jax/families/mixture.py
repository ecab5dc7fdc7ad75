"""Mixtures of diagonal Gaussians, with gradients through samples in every parameter, and the log
density of any mixture of guides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from vi_jax.families._pytree import read_latents
from vi_jax.gaussian import HALF_LOG_TWO_PI, VectorGuide
from vi_jax.types import Array, Family, Guide, Params, freeze


def mixture_log_prob(weights: Array, guides: Sequence[Guide]) -> Callable[[Any], Array]:
    """z -> log sum_k pi_k q_k(z), nats: what boosting grows by one guide at a time (Guo et al.
    2016; Miller et al. 2017).

    Args:
      weights: pi [K], not their logs; differentiable also where a weight is 0, as a new guide's is.
      guides: K guides over one space, of any families.

    Raises:
      ValueError: there are not as many weights as guides.
    """
    weights = jnp.asarray(weights)
    if weights.shape != (len(guides),) or not guides:
        raise ValueError(
            f"a mixture expects one weight for each guide; got weights {weights.shape} and "
            f"{len(guides)} guides."
        )

    def log_prob(z: Any) -> Array:
        log_q = jnp.stack([q.log_prob(z) for q in guides])  # [K, ...]
        there = weights > 0.0
        most = freeze(
            jnp.max(log_q, 0, initial=-jnp.inf, where=there.reshape(-1, *[1] * (log_q.ndim - 1)))
        )
        # jax's logsumexp(b=weights) has gradient 0 at a weight of 0, where it is q_k / q; the limit
        # keeps 0 * inf away there
        return most + jnp.log(jnp.tensordot(weights, jnp.exp(jnp.minimum(log_q - most, 80.0)), 1))

    return log_prob


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture(VectorGuide):
    """sum_k pi_k N(z | mu_k, diag(sigma_k^2))."""

    logits: Array  # [K], of pi
    loc: Array  # [K, D]
    log_scale: Array  # [K, D]

    @property
    def mean(self) -> Array:
        return jax.nn.softmax(self.logits) @ self.loc

    @property
    def log_weights(self) -> Array:
        """log pi, [K]."""
        return jax.nn.log_softmax(self.logits)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples [*sample_shape, D]. The component is chosen at random, and the gradient in all
        parameters, the weights too, is the implicit one, through the distribution function of each
        dimension given those before it.
        """
        key_component, key_normal = jax.random.split(key)
        fixed = freeze(self)
        component = jax.random.categorical(key_component, fixed.logits, shape=sample_shape)
        eps = jax.random.normal(key_normal, (*sample_shape, *self.event_shape), self.loc.dtype)
        z = fixed.loc[component] + jnp.exp(fixed.log_scale[component]) * eps
        draw = _draw
        for _ in sample_shape:
            draw = jax.vmap(draw, (0, None, None, None))
        return draw(z, self.logits, self.loc, self.log_scale)

    def sample_stratified(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Samples of every component, [*sample_shape, K, D], and log pi [K]: E_q[f] = sum_k pi_k
        E_{q_k}[f].

        Differentiable in all parameters, with less variance than `sample` and K times its work: the
        weights' gradient is that of pi_k, outside the expectation (Morningstar et al. 2021).
        """
        eps = jax.random.normal(key, (*sample_shape, *self.loc.shape), self.loc.dtype)
        return jnp.expand_dims(self.loc, tuple(range(len(sample_shape)))) + jnp.exp(
            self.log_scale
        ) * eps, self.log_weights

    def log_density(self, z: Array) -> Array:
        x = (z - self.loc) * jnp.exp(-self.log_scale)
        log_components = (
            -0.5 * jnp.sum(x**2, -1) - self.log_scale.sum(-1) - z.size * HALF_LOG_TWO_PI
        )
        return jax.nn.logsumexp(self.log_weights + log_components)


@jax.custom_jvp
def _draw(z: Array, logits: Array, loc: Array, log_scale: Array) -> Array:
    """z [D], which was drawn from the mixture, with the derivative of a sample (Figurnov et al.
    2018, sec. 3 and 4).
    """
    del logits, loc, log_scale
    return z


@_draw.defjvp
def _draw_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """dz of dF_j(z_j | z_<j) + p(z_j | z_<j) dz_j = 0 for j = 1, ..., D, where F_j = sum_k w_k
    Phi((z_j - mu_kj) / sigma_kj) and w = softmax(log pi_k + sum_{i<j} log N(z_i | mu_ki,
    sigma_ki^2)) holds the z before, whose tangents it carries on.
    """
    _, logits, loc, log_scale = primals
    z = _draw(*primals)
    _, d_logits, d_loc, d_log_scale = tangents

    def dimension(
        carry: tuple[Array, Array], at: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array]:
        (log_w, d_log_w) = carry
        (z, loc, log_scale, d_loc, d_log_scale) = at
        log_w = jax.nn.log_softmax(log_w)
        x = (z - loc) * jnp.exp(-log_scale)  # [K]
        log_normal = -0.5 * x**2 - log_scale - HALF_LOG_TWO_PI
        log_p = jax.nn.logsumexp(log_w + log_normal)
        # sum_k dw_k = 0, so that Phi(x) may be replaced by -Phi(-x): take the tail that is small
        above = jax.nn.logsumexp(log_w + log_ndtr(x)) > jnp.log(0.5)
        side = jnp.where(above, -1.0, 1.0)
        ratio = side * jnp.exp(log_w + log_ndtr(side * x) - log_p)  # w_k Phi_k / p
        centred = d_log_w - jnp.sum(jnp.exp(log_w) * d_log_w)
        moved = d_loc + (z - loc) * d_log_scale
        dz = jnp.sum(jnp.exp(log_w + log_normal - log_p) * moved) - jnp.sum(ratio * centred)
        d_log_normal = -x * (dz - moved) * jnp.exp(-log_scale) - d_log_scale
        return (log_w + log_normal, d_log_w + d_log_normal), dz

    _, dz = jax.lax.scan(
        dimension, (logits, d_logits), (z, loc.T, log_scale.T, d_loc.T, d_log_scale.T)
    )
    return z, dz


def mixture(example: Any, *, num_components: int = 2, spread: float = 1.0) -> Family:
    """q(z) = sum_k pi_k N(z | mu_k, diag(sigma_k^2)) (Bishop et al. 1998; Gershman et al. 2012;
    implicit gradients: Figurnov et al. 2018; stratified ones: Morningstar et al. 2021).

    Args:
      example: D, for latents [D], or a pytree of arrays like the latents.
      num_components: K.
      spread: standard deviation of the components' first means, which differ so that components can
        part.

    Returns:
      A Family whose parameters are {"logits": [K], "loc": [K, D], "log_scale": [K, D]}, from equal
      weights and unit scales. All of them are put out by an encoder, added to where they start.

    Raises:
      ValueError: there are no latents, some are not real, or there are no components.
    """
    latents = read_latents("mixture", example)
    if num_components < 1:
        raise ValueError(f"mixture expects num_components of at least 1; got {num_components}.")

    def init(key: Array) -> Params:
        shape = (num_components, latents.size)
        return {
            "logits": jnp.zeros(num_components),
            "loc": spread * jax.random.normal(key, shape),
            "log_scale": jnp.zeros(shape),
        }

    def guide(params: Params) -> Any:
        return latents.wrap(Mixture(params["logits"], params["loc"], params["log_scale"]))

    return Family(init, guide, shared=())
