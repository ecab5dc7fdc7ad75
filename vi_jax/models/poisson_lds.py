"""The linear dynamical system of spike counts: a Gaussian chain with learned linear dynamics."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np

from vi_jax import chains, linalg
from vi_jax.chains import Chain, ChainStats, Emission
from vi_jax.chains.cvi import NUM_PASSES
from vi_jax.gaussian import fill_tril
from vi_jax.models import _linear_chain
from vi_jax.models._columns import Column
from vi_jax.models._linear_start import Start, start_of
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Model, Params

NAME = "poisson_lds"
START_DECAY = 0.97  # of the latents, a step
START_NOISE = 0.05  # variance


def poisson_lds(
    columns: Sequence[Column],
    *,
    num_latents: int,
    likelihood: Likelihood | None = None,
    num_passes: int = NUM_PASSES,
    chunk: int = 0,
    forget: float | None = None,
    trials: Mapping[str, np.ndarray] | None = None,
    max_steps: int | None = None,
) -> Model:
    """z_1 ~ N(m, P), z_(t+1) ~ N(A z_t, Q), x_tn ~ p(x | c_n' z_t + d_n): Poisson with a log rate
    (Macke et al. 2011; Smith & Brown 2003), or any likelihood of one number.

    An example is one trial {"values": [T, N], "observed": bool [T, N]}; a shorter trial is padded
    with steps at which nothing is observed, a held-out neuron is one that is not observed. Values
    under the mask change nothing, to the last bit.

    The guide is no network but the optimal Gaussian posterior, by `num_passes` of
    conjugate-computation variational inference (Khan & Lin 2017) with nothing kept from step to
    step; a Gaussian likelihood, which makes it a linear dynamical system in the narrow sense, is
    exact after one. The terms are in closed form (a likelihood without one by quadrature, one
    dimension for each observation), without noise, and their gradient is that at fixed sites (the
    envelope theorem). Under other bounds the guide is a frozen proposal.

    Args:
      columns: the observations of a step, of one kind.
      num_latents: D.
      likelihood: of one output; that of the columns' kind if not given.
      num_passes: of the fixed point.
      chunk: steps of an associative scan, for long trials on an accelerator; 0 for a serial one.
      forget: None learns by the gradient alone. A number learns dynamics, loadings and offsets in
        closed form instead (expectation-maximisation; a Gaussian's variances too): the weight of
        a batch in running means of the sufficient statistics, 1 where a batch is all of the data.
      trials: some of the data, leaves [n, T, N]; the loadings start at their principal components.
      max_steps: T of what is generated where no example is given, which has one.

    Returns:
      A Model of parameters {"dynamics": {"transition", "noise", "mean", "cov"}, "loadings",
      "offset", "likelihood"}, and "running" with `forget`; noise and cov are {"log_diag", "lower"}
      of a Cholesky factor.

    Raises:
      ValueError: a size is not positive, the columns are of several kinds and there is no
        likelihood, or that has several outputs.
    """
    _linear_chain.require_sizes(NAME, num_latents, num_passes, chunk, forget)
    chosen = likelihood or _linear_chain.likelihood_of(columns, NAME)
    start = start_of(columns, num_latents, chosen, trials)
    parts = _linear_chain.Parts(
        NAME,
        len(columns),
        _linear_chain.require_one_output(chosen, NAME),
        chain_of,
        lambda params: Emission(params["loadings"], params["offset"]),
        partial(_init, num_latents, start),
        num_passes,
        chunk,
        max_steps,
        _learn_chain,
        forget,
    )
    return _linear_chain.make_model(parts)


def chain_of(params: Params) -> Chain:
    """The chain of a model's parameters."""
    dynamics = params["dynamics"]
    return Chain(
        dynamics["mean"],
        covariance(dynamics["cov"]),
        dynamics["transition"],
        covariance(dynamics["noise"]),
    )


def covariance(factor: Params) -> Array:
    """L L' of {"log_diag", "lower"}."""
    tril = fill_tril(factor["log_diag"], factor["lower"])
    return tril @ tril.T


def factor_of(cov: Array) -> Params:
    """{"log_diag", "lower"} of the Cholesky factor of a covariance."""
    tril = linalg.cholesky(cov)
    rows, columns = np.tril_indices(cov.shape[-1], -1)
    return {"log_diag": jnp.log(jnp.diagonal(tril)), "lower": tril[rows, columns]}


def _learn_chain(params: Params, stats: ChainStats) -> Params:
    """The parameters with the dynamics at the optimum of mean statistics."""
    chain = chains.chain_of(stats)
    dynamics = {
        "mean": chain.mean,
        "cov": factor_of(chain.cov),
        "transition": chain.transition,
        "noise": factor_of(chain.noise),
    }
    return {**params, "dynamics": dynamics}


def _init(num_latents: int, start: Start, key: Array) -> Params:
    lower = jnp.zeros(math.comb(num_latents, 2))
    log_diag = jnp.zeros(num_latents)
    return {
        "dynamics": {
            "mean": jnp.zeros(num_latents),
            "cov": {"log_diag": log_diag, "lower": lower},
            "transition": START_DECAY * jnp.eye(num_latents),
            "noise": {"log_diag": log_diag + 0.5 * math.log(START_NOISE), "lower": lower},
        },
        **start(key),
    }
