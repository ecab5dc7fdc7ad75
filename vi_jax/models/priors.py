"""Priors p(z) with parameters of their own.

Each function returns a `Prior(init, make)`; hand it to `models.amortised` or `models.vae` with
`kl="drawn"` or `kl="entropy"`, as their KL from a guide has no closed form (but for the standard
normal).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax import families
from vi_jax.distributions.shapes import sample_over
from vi_jax.models._layers import standard_normal as _standard_normal
from vi_jax.types import Array, Family, Params, Prior

__all__ = ["flow", "mixture_of_gaussians", "standard_normal", "vamp"]


def standard_normal(num_latents: int) -> Prior:
    """N(0, I) over [D]; no parameters."""
    return Prior(lambda key: {}, lambda params, x, guide: _standard_normal(num_latents))


def mixture_of_gaussians(
    num_latents: int, num_components: int = 500, *, spread: float = 1.0, scale: float = 1.0
) -> Prior:
    """sum_c pi_c N(z | m_c, diag(s_c^2)), all learned: the MoG prior of Tomczak & Welling (2018,
    sec. 5).

    Args:
      num_latents: D.
      num_components: C.
      spread: of the locations at the start, standard deviations.
      scale: s of each component at the start.

    Raises:
      ValueError: a number is not positive.
    """
    if min(num_latents, num_components) < 1 or not (spread > 0 and scale > 0):
        raise ValueError(
            "mixture_of_gaussians expects positive numbers; got num_latents "
            f"{num_latents}, num_components {num_components}, spread {spread}, scale {scale}."
        )

    def init(key: Array) -> Params:
        shape = (num_components, num_latents)
        return {
            "loc": spread * jax.random.normal(key, shape),
            "log_scale": jnp.log(jnp.full(shape, scale, jnp.result_type(float))),
            "logits": jnp.zeros(num_components),
        }

    def make(params: Params, x: Any, guide: Any) -> dist.MixtureSameFamily:
        components = dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)
        return dist.MixtureSameFamily(dist.CategoricalLogits(params["logits"]), components)

    return Prior(init, make)


def vamp(
    x_shape: Sequence[int],
    num_components: int = 500,
    *,
    rows: Any = None,
    centre: float = 0.05,
    noise: float = 0.01,
) -> Prior:
    """(1/C) sum_c q(z | u_c), the guide at learned pseudo-inputs: the VampPrior (Tomczak & Welling
    2018, eq. 9).

    Args:
      x_shape: of one example, an array in [0, 1]; pseudo-inputs are clipped to that.
      num_components: C.
      rows: examples [at least C, *x_shape] that pseudo-inputs start at, plus noise; around `centre`
        if not given, as in the paper's code.
      centre: where pseudo-inputs start without rows.
      noise: standard deviation of what is added to their start.

    Raises:
      ValueError: C is not positive, noise is negative, or there are too few rows, or of another
        shape.
    """
    shape = (num_components, *x_shape)
    if num_components < 1 or noise < 0:
        raise ValueError(
            f"vamp expects num_components of at least 1 and noise of at least 0; got "
            f"{num_components} and {noise}."
        )
    start: Any = centre
    if rows is not None:
        if len(rows) < num_components or jnp.shape(rows)[1:] != shape[1:]:
            raise ValueError(
                f"vamp expects rows of shape {shape} or more of them; got {jnp.shape(rows)}."
            )
        start = jnp.asarray(rows[:num_components], jnp.result_type(float))

    def init(key: Array) -> Params:
        return {"inputs": start + noise * jax.random.normal(key, shape)}

    def make(params: Params, x: Any, guide: Callable[[Any], Any]) -> "GuideMixture":
        return GuideMixture(jnp.clip(params["inputs"], 0.0, 1.0), guide)

    return Prior(init, make)


def flow(num_latents: int, family: Callable[[int], Family] = families.real_nvp) -> Prior:
    """A normalising flow as p(z) (Chen et al. 2017; Xu et al. 2019).

    Args:
      num_latents: D.
      family: num_latents -> a flow of `vi_jax.families` whose density is known at any z, such as
        real_nvp or neural_spline.
    """
    chosen = family(num_latents)
    return Prior(chosen.init, lambda params, x, guide: chosen.guide(params))


class GuideMixture:
    """The uniform mixture of a guide over inputs [C, ...], as a density over z.

    It holds a function, and so is no pytree; it lives within one evaluation of a model.
    """

    def __init__(self, inputs: Any, guide: Callable[[Any], Any]) -> None:
        self.inputs = inputs
        self.guide = guide

    def log_prob(self, value: Any) -> Array:
        """log of the mean of q(z | u_c) over c, nats."""
        each = jax.vmap(lambda u: self.guide(u).log_prob(value))(self.inputs)  # [C]
        return jax.nn.logsumexp(each) - jnp.log(each.shape[0])

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples, each from a component of its own."""

        def one(key: Array) -> Any:
            key_component, key_z = jax.random.split(key)
            num = jax.tree.leaves(self.inputs)[0].shape[0]
            chosen = jax.random.randint(key_component, (), 0, num)
            u = jax.tree.map(lambda leaf: leaf[chosen], self.inputs)
            return self.guide(u).sample(key_z)

        return sample_over(one, key, sample_shape)
