"""Gaussian-process factor analysis: latents with Matern kernels, one time scale each."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax import linalg
from vi_jax.chains import Chain, Emission
from vi_jax.chains.cvi import NUM_PASSES
from vi_jax.models import _linear_chain
from vi_jax.models._columns import Column
from vi_jax.models._linear_start import Start, start_of
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params

NAME = "gpfa"
ORDERS = {"matern12": 1, "matern32": 2, "matern52": 3}  # states of a latent
SHORTEST = 2.0  # time scale, steps
FIRST = 5.0  # the shortest at the start, where trials are long enough
POINTS = 10  # of the quadrature of the noise, exact to rounding at time scales of SHORTEST and more


def gpfa(
    columns: Sequence[Column],
    *,
    num_latents: int,
    kernel: str = "matern32",
    likelihood: Likelihood | None = None,
    num_passes: int = NUM_PASSES,
    chunk: int = 0,
    forget: float | None = None,
    trials: Mapping[str, np.ndarray] | None = None,
    max_steps: int | None = None,
) -> Model:
    """x_tn ~ p(x | c_n' f_t + d_n) with D independent Gaussian processes f of variance 1, a Matern
    kernel and a time scale each (Yu et al. 2009, there with a Gaussian likelihood of square roots
    of counts and a squared exponential; Poisson: Zhao & Park 2017).

    A Matern kernel of order 1/2, 3/2 or 5/2 is a chain of 1, 2 or 3 states a latent, without error
    (Hartikainen & Sarkka 2010), so that the guide, the examples, the masks and the terms are those
    of `poisson_lds`, linear in T. z are the states: the process first, then its derivatives in
    units of the kernel's rate.

    Args:
      columns, num_latents, likelihood, num_passes, chunk, trials, max_steps: as of `poisson_lds`.
      kernel: "matern12", "matern32" or "matern52".
      forget: as of `poisson_lds`, of loadings and offsets; time scales follow the gradient.

    Returns:
      A Model of parameters {"time_scale" [D], "loadings" [N, D], "offset", "likelihood"}, and
      "running" with `forget`; `time_scales` has the scales in steps, which stay between 2 and
      max_steps.

    Raises:
      ValueError: a kernel or a size is not what it has to be, or as of `poisson_lds`.
    """
    if kernel not in ORDERS:
        raise ValueError(f"{NAME} expects a kernel of {', '.join(ORDERS)}; got {kernel!r}.")
    _linear_chain.require_sizes(NAME, num_latents, num_passes, chunk, forget)
    longest = max(float(max_steps or 0), 2.0 * SHORTEST)
    chosen = likelihood or _linear_chain.likelihood_of(columns, NAME)
    order = ORDERS[kernel]
    parts = _linear_chain.Parts(
        NAME,
        len(columns),
        _linear_chain.require_one_output(chosen, NAME),
        lambda params: chain_of(order, time_scales(params, longest)),
        partial(_emission, order),
        partial(_init, num_latents, longest, start_of(columns, num_latents, chosen, trials)),
        num_passes,
        chunk,
        max_steps,
        None,
        forget,
        tuple(range(0, order * num_latents, order)),
    )
    return _linear_chain.make_model(parts)


def time_scales(params: Params, longest: float) -> Array:
    """The time scales in steps, [D], between SHORTEST and `longest`."""
    share = jax.nn.sigmoid(params["time_scale"])
    return SHORTEST * jnp.exp(share * math.log(longest / SHORTEST))


def chain_of(order: int, scales: Array) -> Chain:
    """The states of processes of variance 1, one after the other.

    Args:
      order: states of each, 1, 2 or 3.
      scales: time scales in steps, [D].
    """
    rates = math.sqrt(2.0 * order - 1.0) / scales
    blocks = [matern(order, rate) for rate in rates]
    transition = linalg.block_diag(*(each.transition for each in blocks))
    noise = linalg.block_diag(*(each.noise for each in blocks))
    cov = linalg.block_diag(*(each.cov for each in blocks))
    return Chain(jnp.zeros(len(cov), cov.dtype), cov, transition, noise)


def matern(order: int, rate: Array) -> Chain:
    """One process of variance 1: its states are f, f' / rate, f'' / rate^2 (Hartikainen & Sarkka
    2010, eq. 12).

    The noise is an integral of positive terms, not the difference P - A P A', which has no digits
    left in float32 where the time scale is many steps.
    """
    # 1. the companion matrix of (s + 1)^order, plus I: its power `order` is 0
    shift = np.diag(np.ones(order - 1), 1) + np.eye(order)
    shift[-1] -= [math.comb(order, k) for k in range(order)]
    powers = [np.linalg.matrix_power(shift, k) / math.factorial(k) for k in range(order)]
    # 2. exp(F t) = e^(-rate t) sum_k (rate t)^k shift^k / k!
    transition = jnp.exp(-rate) * sum(rate**k * power for k, power in enumerate(powers))
    # 3. noise = diffusion times the integral of w(s) w(s)' e^(-2 rate s), w = exp(F s) e_last
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    times = jnp.asarray(0.5 * (points + 1.0), rate.dtype)
    each = [(rate * times[:, None]) ** k * power[:, -1] for k, power in enumerate(powers)]
    ways = jnp.sum(jnp.stack(each), axis=0)
    mass = 0.5 * jnp.asarray(weights, rate.dtype) * jnp.exp(-2.0 * rate * times)
    diffusion = (2.0, 4.0, 16.0 / 3.0)[order - 1] * rate
    noise = diffusion * (ways.T * mass) @ ways
    third = 1.0 / 3.0
    cov = np.array([[1.0, 0.0, -third], [0.0, third, 0.0], [-third, 0.0, 1.0]])
    if order < 3:
        cov = np.eye(order)
    zeros = jnp.zeros(order, rate.dtype)
    return Chain(zeros, jnp.asarray(cov, rate.dtype), transition, noise)


def _emission(order: int, params: Params) -> Emission:
    """Loadings of all states: of derivatives 0."""
    loadings = params["loadings"]
    spread = jnp.zeros((*loadings.shape, order), loadings.dtype).at[..., 0].set(loadings)
    return Emission(spread.reshape(loadings.shape[0], -1), params["offset"])


def _init(num_latents: int, longest: float, start: Start, key: Array) -> Params:
    # scales evenly apart on a log scale, the longest at the latent of the largest variance
    first = min(FIRST, 0.5 * (SHORTEST + longest))
    scales = np.geomspace(math.sqrt(first * longest), first, num_latents)
    share = np.log(scales / SHORTEST) / math.log(longest / SHORTEST)
    return {"time_scale": jnp.asarray(np.log(share / (1.0 - share)), jnp.float32), **start(key)}
