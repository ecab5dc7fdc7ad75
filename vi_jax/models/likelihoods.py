"""p(x | z) from a decoder's outputs: what a pixel's outputs mean, and the parameters that belong to
no pixel.

Each factory returns a `Likelihood`; all are summed over pixels by `log_lik`, never divided by them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.distributions import Bernoulli, DiscretizedLogistic
from vi_jax.types import Array, Params, freeze

__all__ = [
    "Likelihood",
    "bernoulli",
    "categorical",
    "discretized_logistic",
    "gaussian",
    "gaussian_learned",
    "gaussian_optimal",
    "gaussian_per_dimension",
]


class Likelihood(NamedTuple):
    """How a decoder's outputs [*x_shape, num_outputs] become a distribution over x [*x_shape]."""

    num_outputs: int
    init: Callable[[tuple[int, ...]], Params]  # x_shape -> the likelihood's own parameters
    make: Callable[
        [Params, Array], Any
    ]  # (own parameters, outputs) -> a distribution of batch shape x_shape
    # (x, p(x | z)) -> statistics of one example at one draw, and (own parameters, their mean over a
    # batch) -> own parameters at their optimum on the batch
    stats: Callable[[Array, Any], Any] | None = None
    update: Callable[[Params, Any], Params] | None = None
    # what x is: "binary" (0 or 1), "unit" (a grey level in [0, 1]) or "levels" (whole numbers)
    support: str = "unit"
    scale: float = 1.0  # x times this is in [0, 1]: what an encoder sees


def _none(x_shape: tuple[int, ...]) -> Params:
    del x_shape
    return {}


def bernoulli() -> Likelihood:
    """x in {0, 1} by its logits; grey levels in [0, 1] are read as probabilities of a one."""
    return Likelihood(1, _none, lambda _, outputs: Bernoulli(outputs[..., 0]), support="binary")


def gaussian(sigma: float, *, link: Callable[[Array], Array] = lambda f: f) -> Likelihood:
    """N(x | f(z), sigma^2 I) with sigma given.

    -ELBO = |x - f(z)|^2 / (2 sigma^2) + KL + (D_x / 2) log(2 pi sigma^2), so that to fix sigma is
    to weigh the KL: the minimiser is that of |x - f(z)|^2 / 2 + beta KL with **beta = sigma^2**.
    With a squared error *averaged* over D_x pixels, as it is often typed, the same holds with beta
    = 2 sigma^2 / D_x. Tuning beta at a fixed sigma, or sigma at a fixed beta, is the same search;
    learning sigma (below) ends it (Rybkin et al. 2021, sec. 3).

    Args:
      sigma: standard deviation of a pixel, in the units of x.
      link: makes the mean of a pixel from its output; the identity, or `jax.nn.sigmoid` for x in
        [0, 1].

    Raises:
      ValueError: sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"a Gaussian likelihood needs sigma > 0, in the units of x; got {sigma}.")
    return Likelihood(1, _none, lambda _, outputs: dist.Normal(link(outputs[..., 0]), sigma))


def gaussian_learned(
    sigma_init: float = 0.1, *, link: Callable[[Array], Array] = lambda f: f
) -> Likelihood:
    """N(x | f(z), sigma^2 I) with log sigma one trained scalar (Rybkin et al. 2021, sec. 3); see
    `gaussian`.
    """
    return _gaussian_trained(sigma_init, lambda x_shape: (), link)


def gaussian_per_dimension(
    sigma_init: float = 0.1, *, link: Callable[[Array], Array] = lambda f: f
) -> Likelihood:
    """N(x | f(z), diag(sigma^2)) with log sigma trained, one for each dimension of x; see
    `gaussian`.
    """
    return _gaussian_trained(sigma_init, lambda x_shape: x_shape, link)


def gaussian_optimal(
    sigma_init: float = 0.1, *, link: Callable[[Array], Array] = lambda f: f
) -> Likelihood:
    """N(x | f(z), sigma^2 I) with sigma^2 at its optimum on every batch: the mean squared error
    (Rybkin et al. 2021, eq. 6).

    The optimum is a coordinate step and has no gradient of its own (by the envelope theorem it
    needs none); the last batch's value is kept in the parameters and is what evaluation uses.
    """
    trained = _gaussian_trained(sigma_init, lambda x_shape: (), link)

    def make(params: Params, outputs: Array) -> dist.Normal:
        return trained.make(freeze(params), outputs)

    def stats(x: Array, p: dist.Normal) -> Array:
        return jnp.mean((x - p.mean) ** 2)

    def update(params: Params, mean_square: Array) -> Params:
        del params
        return {"log_sigma": 0.5 * jnp.log(mean_square)}

    return Likelihood(1, trained.init, make, stats, update)


def _gaussian_trained(
    sigma_init: float,
    shape: Callable[[tuple[int, ...]], tuple[int, ...]],
    link: Callable[[Array], Array],
) -> Likelihood:
    if not sigma_init > 0:
        raise ValueError(
            f"a Gaussian likelihood needs sigma_init > 0, in the units of x; got {sigma_init}."
        )

    def init(x_shape: tuple[int, ...]) -> Params:
        return {"log_sigma": jnp.log(jnp.full(shape(x_shape), sigma_init, jnp.result_type(float)))}

    def make(params: Params, outputs: Array) -> dist.Normal:
        return dist.Normal(link(outputs[..., 0]), jnp.exp(params["log_sigma"]))

    return Likelihood(1, init, make)


def discretized_logistic(num_levels: int = 256) -> Likelihood:
    """x in the levels 0..num_levels - 1 by a rounded logistic, location and scale of each pixel
    from the decoder (Salimans et al. 2017, eq. 2, one component). log p(x) / (D_x log 2) is bits
    per dimension.
    """
    centre = (num_levels - 1) / 2.0

    def make(params: Params, outputs: Array) -> DiscretizedLogistic:
        del params
        loc = centre * (1.0 + outputs[..., 0])
        scale = num_levels * jnp.exp(outputs[..., 1] - 3.0)  # starts at a twentieth of the range
        return DiscretizedLogistic(loc, scale, num_levels)

    return Likelihood(2, _none, make, support="levels", scale=1.0 / (num_levels - 1))


def categorical(num_levels: int = 256) -> Likelihood:
    """x in the levels 0..num_levels - 1 as unordered classes, logits from the decoder."""
    return Likelihood(
        num_levels,
        _none,
        lambda _, outputs: dist.CategoricalLogits(outputs),
        support="levels",
        scale=1.0 / (num_levels - 1),
    )
