"""Convergence of a fit: the gradient of the ELBO in each latent's location and scale, and the R-hat
of a trace.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.diagnostics.posterior import CHUNK
from vi_jax.types import Array, LogDensity

MIN_VALUES = 20  # of a trace, for it to say something


class Slopes(NamedTuple):
    """Gradients of the ELBO in two numbers of each latent: a shift by standard deviations, and the
    log of its scale.
    """

    # [D], nats per standard deviation; near the optimum, how many of these the guide has to move
    # by
    location: Array
    location_z: Array  # [D], over its standard error
    log_scale: Array  # [D], nats; twice what the log of the standard deviation has to change by
    log_scale_z: Array  # [D]
    # of one sample's gradient in all 2 D: the length of the mean over the root mean squared noise
    signal_to_noise: Array


def slopes(log_density: LogDensity, q: Any, u: Array) -> Slopes:
    """How far a guide is from the optimum that any family has which can move and stretch each
    latent: there all of these are 0.

    With f = log p - log q and u drawn from q, of mean m and standard deviations s, the ELBO's
    derivative in a shift of latent j by t s_j is E[s_j df/du_j], in a factor e^t of its deviations
    E[(u_j - m_j) df/du_j]. The guide's own density is held (Roeder et al. 2017), so that each term,
    not only the mean, is 0 where q is the posterior. Methods that match something else than the
    ELBO end a little off.

    Args:
      log_density: u [D] -> nats; one gradient a sample.
      q: the guide; its `log_prob` is differentiated in u.
      u: samples of it, [N, D]; those at which a gradient is not finite are left out.
    """

    def gap(u: Array) -> Array:
        return log_density(u) - q.log_prob(u)

    gradients = jax.lax.map(jax.grad(gap), u, batch_size=min(CHUNK, len(u)))
    good = jnp.all(jnp.isfinite(gradients), axis=1, keepdims=True)
    terms = jnp.concatenate([u.std(0) * gradients, (u - u.mean(0)) * gradients], axis=1)  # [N, 2 D]
    num = good.sum()
    mean = jnp.sum(jnp.where(good, terms, 0.0), axis=0) / num
    variance = jnp.sum(jnp.where(good, (terms - mean) ** 2, 0.0), axis=0) / (num - 1)
    stderr = jnp.sqrt(variance / num)
    z = jnp.where(mean == 0, 0.0, mean / jnp.maximum(stderr, jnp.finfo(u.dtype).tiny))
    noise = variance.sum()
    # the squared length of a mean of noise is that much
    signal = jnp.maximum(jnp.sum(mean**2) - noise / num, 0.0)
    ratio = jnp.where(
        noise > 0, jnp.sqrt(signal / jnp.maximum(noise, jnp.finfo(u.dtype).tiny)), 0.0
    )
    (location, log_scale) = jnp.split(mean, 2)
    (location_z, log_scale_z) = jnp.split(z, 2)
    return Slopes(location, location_z, log_scale, log_scale_z, ratio)


class Rest(NamedTuple):
    """Whether a trace is stationary."""

    r_hat: float  # split R-hat of the halves; nan where it does not apply
    mcse: float  # Monte Carlo standard error of the mean, of batches
    num: int  # values of the trace


def rest(values: np.ndarray) -> Rest:
    """Split R-hat (Vehtari et al. 2021) and the Monte Carlo error of the mean, of the second half
    of a trace of values [T].

    nan where there are fewer than 20 values, or where they hardly ever fall: those of an ascent,
    which ends by its own rule.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    tail = values[len(values) // 2 :]
    num = len(tail) // 2 * 2
    tail = tail[len(tail) - num :]
    if num < MIN_VALUES or np.mean(np.diff(tail) < 0) < 0.2:
        return Rest(np.nan, np.nan, num)
    halves = tail.reshape(2, -1)
    within = halves.var(axis=1, ddof=1).mean()
    n = num // 2
    r_hat = np.sqrt((n - 1) / n + halves.mean(axis=1).var(ddof=1) / within)
    length = int(np.sqrt(num))
    batches = tail[num - num // length * length :].reshape(-1, length).mean(axis=1)
    return Rest(float(r_hat), float(batches.std(ddof=1) / len(batches) ** 0.5), num)
