"""Linear response of DADVI: posterior covariances, and the error of its samples being few."""

import jax
import jax.numpy as jnp

from vi_jax.methods._linear_response import response
from vi_jax.methods.dadvi import State, negative_elbo, units_of
from vi_jax.types import Array, LogDensity


def linear_response(log_density: LogDensity, state: State) -> Array:
    """The posterior's covariance [D, D] by linear response: the block of the locations in the
    inverse Hessian of DADVI's objective (Giordano, Broderick & Jordan 2018; Giordano et al. 2024).
    Exact where the posterior is Gaussian, while the variances of mean-field are 1 / precision_jj.

    Costs 2 N evaluations for each of 2 D parameters; nan where the state is at no minimum.
    """
    size = state.loc.size
    return _columns(log_density, state, jnp.arange(size))[:, :size]


def linear_response_sd(log_density: LogDensity, state: State, which: Array | None = None) -> Array:
    """Posterior standard deviations by linear response, [M], of the latents `which` [M] (all if not
    given).

    From D over 200 on, conjugate gradients for each of them, without a matrix.
    """
    which = jnp.arange(state.loc.size) if which is None else jnp.asarray(which)
    columns = _columns(log_density, state, which)
    return jnp.sqrt(columns[jnp.arange(which.size), which])


def frequentist_stderr(log_density: LogDensity, state: State, which: Array | None = None) -> Array:
    """Standard errors of the locations `which` [M] from the samples being N only: those of an
    M-estimator,

        sqrt(diag(H^-1 V H^-1) / N)

    with V the covariance over samples of the gradients of log p(mu + exp(xi) z_n) (Giordano et al.
    2024). What is far below a posterior standard deviation needs no more samples.
    """
    which = jnp.arange(state.loc.size) if which is None else jnp.asarray(which)
    columns = _columns(log_density, state, which)
    scale = jnp.exp(state.log_scale)
    scores = jax.vmap(jax.grad(log_density))(state.loc + scale * state.draws)
    gradients = jnp.concatenate([scores, scores * scale * state.draws], axis=1)  # [N, 2 D]
    influence = gradients @ columns.T  # [N, M]
    return jnp.std(influence, axis=0, ddof=1) / jnp.sqrt(len(state.draws))


def _columns(log_density: LogDensity, state: State, which: Array) -> Array:
    """Rows `which` of the inverse Hessian, [M, 2 D]."""
    params = jnp.concatenate([state.loc, state.log_scale])
    directions = jax.nn.one_hot(which, params.size, dtype=params.dtype)
    # in units of the scales the Hessian is well conditioned: H^-1 = S (S H S)^-1 S
    units = units_of(state.log_scale)
    scaled = response(
        lambda x: negative_elbo(log_density, state.draws, units * x),
        params / units,
        directions * units[which][:, None],
    )
    return scaled * units
