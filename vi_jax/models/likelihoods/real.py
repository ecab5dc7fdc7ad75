"""Likelihoods of real and of positive numbers.

Scales that are trained may be given a floor, `min_scale`: without one the density of a value that
is repeated often (a sensor's limit, a filled-in zero) grows without end as its scale goes to 0.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vi_jax.distributions import StudentT
from vi_jax.models.likelihoods._likelihood import (
    Likelihood,
    expected_normal,
    filled,
    no_parameters,
    require_positive,
)
from vi_jax.types import Array, Params, freeze

SMALLEST = 1e-6  # of a scale at its optimum, above its floor
_SOFTPLUS_ONE = 0.5413248546129181  # log(e - 1), where softplus is 1


def identity(f: Array) -> Array:
    """f."""
    return f


def gaussian(sigma: float, *, link: Callable[[Array], Array] = identity) -> Likelihood:
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

    def expected(own: Params, x: Array, mean: Array, variance: Array) -> Array:
        del own
        return expected_normal(jnp.asarray(sigma, mean.dtype), x, mean, variance)

    likelihood = Likelihood(
        1,
        no_parameters,
        lambda _, outputs: dist.Normal(link(outputs[..., 0]), sigma),
        support="real",
    )
    return likelihood._replace(expected=expected) if link is identity else likelihood


def gaussian_learned(
    sigma_init: float = 0.1, *, link: Callable[[Array], Array] = identity
) -> Likelihood:
    """N(x | f(z), sigma^2 I) with log sigma one trained scalar (Rybkin et al. 2021, sec. 3); see
    `gaussian`.
    """
    return _gaussian_trained(sigma_init, lambda x_shape: (), link)


def gaussian_per_dimension(
    sigma_init: Any = 0.1,
    *,
    link: Callable[[Array], Array] = identity,
    min_scale: Any = 0.0,
) -> Likelihood:
    """N(x | f(z), diag(sigma^2)) with log sigma trained, one for each dimension of x; see
    `gaussian`.

    Args:
      sigma_init: where sigma starts, in the units of x; a number or an array [*x_shape].
      link: see `gaussian`.
      min_scale: sigma is this plus the exponential of the parameter `log_sigma`.

    Raises:
      ValueError: sigma_init is not above min_scale, or that is negative.
    """
    return _gaussian_trained(sigma_init, lambda x_shape: x_shape, link, min_scale)


def gaussian_heteroscedastic(
    sigma_init: Any = 1.0,
    *,
    link: Callable[[Array], Array] = identity,
    min_scale: Any = 1e-3,
) -> Likelihood:
    """N(x | f(z), diag(sigma(z)^2)), mean and scale of each element from the decoder (Kendall & Gal
    2017, eq. 5).

    sigma(z) = min_scale + (sigma_init - min_scale) softplus(output + log(e - 1)): sigma_init at an
    output of 0. Without a floor its density is unbounded, at a latent of its own for one example
    (Mattei & Frellsen 2018, proposition 1).

    Args, errors: as for `gaussian_per_dimension`.
    """
    _require_scales("gaussian_heteroscedastic", sigma_init, min_scale)

    def make(params: Params, outputs: Array) -> dist.Normal:
        del params
        return dist.Normal(link(outputs[..., 0]), _put_out(outputs[..., 1], sigma_init, min_scale))

    return Likelihood(2, no_parameters, make, support="real")


def gaussian_optimal(
    sigma_init: float = 0.1, *, link: Callable[[Array], Array] = identity
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

    return Likelihood(1, trained.init, make, stats, update, support="real")


def student_t(
    scale_init: Any = 0.1,
    *,
    df_init: float = 10.0,
    min_df: float = 2.0,
    min_scale: Any = 0.0,
    heteroscedastic: bool = False,
) -> Likelihood:
    """Student-t of centre f(z), scale and degrees of freedom trained, one of each for each element
    (Takahashi et al. 2018, eq. 8): for real numbers with outliers.

    The variance is scale^2 df / (df - 2); it exists since df = min_df + e^a with a trained.

    Args:
      scale_init: where the scale starts, in the units of x; a number or an array [*x_shape].
      df_init: where the degrees of freedom start, above min_df.
      min_df: which they stay above; at least 2.
      min_scale: which the scale stays above.
      heteroscedastic: the decoder puts out the scale too, see `gaussian_heteroscedastic`.

    Raises:
      ValueError: a start is not above its floor, or a floor is too low.
    """
    _require_scales("student_t", scale_init, min_scale)
    if not df_init > min_df >= 2.0:
        raise ValueError(
            f"student_t needs df_init above min_df, and that at least 2; got df_init {df_init} and "
            f"min_df {min_df}."
        )

    def init(x_shape: tuple[int, ...]) -> Params:
        own = {"log_df": filled(math.log(df_init - min_df), x_shape)}
        if not heteroscedastic:
            own["log_scale"] = _log_above(scale_init, min_scale, x_shape)
        return own

    def make(params: Params, outputs: Array) -> StudentT:
        df = min_df + jnp.exp(params["log_df"])
        if heteroscedastic:
            scale = _put_out(outputs[..., 1], scale_init, min_scale)
        else:
            scale = min_scale + jnp.exp(params["log_scale"])
        return StudentT(df, outputs[..., 0], scale)

    return Likelihood(1 + heteroscedastic, init, make, support="real")


def log_normal(
    sigma_init: Any = 0.1, *, min_scale: Any = 0.0, heteroscedastic: bool = False
) -> Likelihood:
    """log x ~ N(f(z), diag(sigma^2)) for x > 0, log sigma trained, one for each element.

    Args:
      sigma_init: where sigma starts, in units of log x; a number or an array [*x_shape].
      min_scale: which sigma stays above; likewise.
      heteroscedastic: the decoder puts out sigma too, see `gaussian_heteroscedastic`.

    Raises:
      ValueError: sigma_init is not above min_scale, or that is negative.
    """
    _require_scales("log_normal", sigma_init, min_scale)

    def init(x_shape: tuple[int, ...]) -> Params:
        if heteroscedastic:
            return {}
        return {"log_sigma": _log_above(sigma_init, min_scale, x_shape)}

    def make(params: Params, outputs: Array) -> dist.LogNormal:
        if heteroscedastic:
            sigma = _put_out(outputs[..., 1], sigma_init, min_scale)
        else:
            sigma = jnp.exp(params["log_sigma"]) + min_scale
        return dist.LogNormal(outputs[..., 0], sigma)

    return Likelihood(1 + heteroscedastic, init, make, support="positive")


def _gaussian_trained(
    sigma_init: Any,
    shape: Callable[[tuple[int, ...]], tuple[int, ...]],
    link: Callable[[Array], Array],
    min_scale: Any = 0.0,
) -> Likelihood:
    if not np.all(np.asarray(sigma_init) > 0):
        raise ValueError(
            f"a Gaussian likelihood needs sigma_init > 0, in the units of x; got {sigma_init}."
        )
    _require_scales("a Gaussian likelihood", sigma_init, min_scale)

    def init(x_shape: tuple[int, ...]) -> Params:
        return {"log_sigma": _log_above(sigma_init, min_scale, shape(x_shape))}

    def make(params: Params, outputs: Array) -> dist.Normal:
        sigma = jnp.exp(params["log_sigma"]) + min_scale
        return dist.Normal(link(outputs[..., 0]), sigma)

    def expected(own: Params, x: Array, mean: Array, variance: Array) -> Array:
        sigma = jnp.exp(own["log_sigma"]) + min_scale
        return expected_normal(sigma, x, mean, variance)

    def at_residual(own: Params, square: Array) -> Params:
        sigma = jnp.sqrt(square.reshape(*own["log_sigma"].shape, -1).mean(-1))
        above = jnp.maximum(sigma - min_scale, SMALLEST)
        return {"log_sigma": jnp.log(above)}

    if link is not identity:
        return Likelihood(1, init, make, support="real")
    return Likelihood(1, init, make, support="real", expected=expected, at_residual=at_residual)


def _put_out(output: Array, start: Any, floor: Any) -> Array:
    """A scale from a decoder's output: `start` at 0, above the floor everywhere."""
    span = jnp.asarray(np.asarray(start) - np.asarray(floor), output.dtype)
    return span * jax.nn.softplus(output + _SOFTPLUS_ONE) + jnp.asarray(floor, output.dtype)


def _log_above(start: Any, floor: Any, shape: tuple[int, ...]) -> Array:
    return jnp.log(filled(np.asarray(start) - np.asarray(floor), shape))


def _require_scales(likelihood: str, start: Any, floor: Any) -> None:
    require_positive(likelihood, "a scale at its start", start)
    if not np.all(np.asarray(start) > np.asarray(floor)) or not np.all(np.asarray(floor) >= 0):
        raise ValueError(
            f"{likelihood} needs a scale that starts above min_scale, and that at least 0; got "
            f"{start} and {floor}."
        )
