"""Natural-gradient variational inference for the full-rank Gaussian."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vi_jax.types import Array, LogDensity, Method, MethodInfo

_DECAY = 0.9  # of the running means
_LATE_SCALE = 10.0  # late steps after which rho has fallen by the root of 2
# squared length of a mean gradient, per latent: twice the KL that is left
_GRADIENT_TOLERANCE = 1e-3
_ZERO_GRADIENT = 1e-8  # squared length of a gradient, per latent, that is none


class State(NamedTuple):
    """N(mean, root root'), and its average over late steps."""

    mean: Array  # [D]
    root: Array  # [D, D], lower triangular
    mean_average: Array  # [D], over late steps
    root_average: Array  # [D, D]
    slope_average: Array  # [D + D^2], of the whitened gradients, over late steps
    trend: Array  # [D + D^2], running mean of the whitened gradients
    power: Array  # running mean of their squared lengths
    step: Array  # int32
    late: Array  # int32, steps since only noise is left
    evaluations: Array  # int32


class Rules(NamedTuple):
    """The numbers of `natural_gradient`."""

    num_draws: int | None
    learning: float
    hessian: bool
    num_late_steps: int
    max_length: float


def natural_gradient(
    *,
    num_draws: int | None = None,
    learning: float = 0.3,
    hessian: bool = False,
    num_late_steps: int = 300,
    max_length: float = 0.5,
    num_steps: int = 5000,
) -> Method:
    """Full-rank N(mu, L L') by natural gradients of the ELBO, L lower triangular (Lin, Schmidt &
    Khan 2021; Tan 2025).

    In the coordinates where q is the standard normal, z = mu + L eps, the gradients of Bonnet and
    Price are

        b = E[L' grad log p(z)]
        A = I + E[L' Hess log p(z) L] = I + E[eps (L' grad log p(z))'] symmetrised

    and a step of size rho, with h(M) = I + M + M^2 / 2 and low() the lower triangle with half the
    diagonal, is
        mu' = mu + rho L b,   L' = L h(rho low(A)):
    no matrix is inverted, and L stays a root whatever the noise. Without Hessians the entropy's
    part takes the same samples, eps eps' for I: both gradients vanish with certainty where q is the
    posterior ("sticking the landing"). On minibatches this is the variational online Newton method
    (Khan et al. 2018) with a full covariance and square-root steps.

    The paper's step is constant. Here a step is shortened to a length of max_length sqrt D in
    Fisher's metric, and once the gradients are noise around no trend, rho falls as 1 / sqrt t and
    the iterates are averaged.

    Args:
      num_draws: K, gradients a step; max(10, D + 5) if not given, 4 with Hessians.
      learning: rho, before it falls.
      hessian: Price's theorem with Hessians (2 D evaluations each) rather than Stein's identity;
        for D of a few tens.
      num_late_steps: that are averaged; or until no gradient is left.
      max_length: of a step, per sqrt D.
      num_steps: at most.

    Returns:
      A Method for D of up to some hundreds, also for minibatches. Its `value` is an estimate of the
      ELBO from the step's samples. A step that is not finite is skipped.
    """
    rules = Rules(num_draws, learning, hessian, num_late_steps, max_length)
    return Method(
        "natural_gradient", _init, partial(_step, rules=rules), _guide, num_steps, stochastic=True
    )


def _init(key: Array, log_density: LogDensity, start: Array) -> State:
    del key, log_density
    eye = jnp.eye(start.size, dtype=start.dtype)
    trend = jnp.zeros(start.size + start.size**2, start.dtype)
    zero = jnp.int32(0)
    return State(start, eye, start, eye, trend, trend, jnp.zeros((), start.dtype), zero, zero, zero)


def _step(
    key: Array, log_density: LogDensity, state: State, rules: Rules
) -> tuple[State, MethodInfo]:
    mean = state.mean
    root = state.root
    size = state.mean.size
    draws = rules.num_draws or (4 if rules.hessian else max(10, size + 5))
    eps = jax.random.normal(key, (draws, size), mean.dtype)
    gradient = _price if rules.hessian else _stein
    log_p, b, a, cost = gradient(log_density, mean, root, eps)

    length = jnp.sqrt(b @ b + 0.5 * jnp.sum(a**2))  # Fisher's, of the natural gradient
    fall = jnp.sqrt(1 / (1 + state.late / _LATE_SCALE)).astype(mean.dtype)
    rho = jnp.minimum(rules.learning * fall, rules.max_length * size**0.5 / (length + 1e-30))
    new_mean = mean + rho * (root @ b)
    m = rho * (jnp.tril(a, -1) + 0.5 * jnp.diag(jnp.diagonal(a)))
    new_root = root + root @ (m + 0.5 * m @ m)

    good = jnp.isfinite(length) & jnp.all(jnp.isfinite(new_root)) & jnp.all(jnp.isfinite(log_p))
    mean = jnp.where(good, new_mean, mean)
    root = jnp.where(good, new_root, root)
    flat = jnp.concatenate([b, a.ravel() * 2**-0.5])
    trend = jnp.where(good, _DECAY * state.trend + (1 - _DECAY) * flat, state.trend)
    power = jnp.where(good, _DECAY * state.power + (1 - _DECAY) * length**2, state.power)
    # independent noise around 0 leaves a share (1 - k) / (1 + k) of its power in a running mean
    noise_only = trend @ trend < 2 * (1 - _DECAY) / (1 + _DECAY) * power
    settled = (state.step > 2 / (1 - _DECAY)) & (noise_only | (power < _ZERO_GRADIENT * size))
    late = state.late + jnp.where((state.late > 0) | settled, good, False)
    # later ones weigh more (Shamir & Zhang 2013)
    share = jnp.where(good, 2 / (late + 1), 0.0).astype(mean.dtype)
    slope = jnp.where(late > 0, state.slope_average + share * (flat - state.slope_average), 0.0)
    # at the optimum the mean gradient is noise; where it is not, the late steps begin again
    rest = slope @ slope < 4 * power / jnp.maximum(late, 1) + _GRADIENT_TOLERANCE * size
    ended = late >= rules.num_late_steps
    late = jnp.where(ended & ~rest, 0, late)
    new = State(
        mean,
        root,
        jnp.where(late > 0, state.mean_average + share * (mean - state.mean_average), mean),
        jnp.where(late > 0, state.root_average + share * (root - state.root_average), root),
        slope,
        trend,
        power,
        state.step + 1,
        late,
        state.evaluations + cost,
    )
    log_q = (
        -0.5 * jnp.sum(eps**2, 1)
        - jnp.log(jnp.diagonal(state.root)).sum()
        - 0.5 * size * jnp.log(2 * jnp.pi)
    )
    value = jnp.where(good, jnp.mean(log_p - log_q), jnp.nan)
    done = (ended & rest) | (late > 0) & (power < _ZERO_GRADIENT * size)
    return new, MethodInfo(value.astype(mean.dtype), new.evaluations, done)


def _guide(state: State) -> Any:
    return dist.MultivariateNormal(state.mean_average, scale_tril=state.root_average)


def _stein(
    log_density: LogDensity, mean: Array, root: Array, eps: Array
) -> tuple[Array, Array, Array, int]:
    """log p [K], b [D], A [D, D] and the evaluations, by first derivatives."""
    log_p, scores = jax.vmap(jax.value_and_grad(log_density))(mean + eps @ root.T)
    # L' grad (log p - log q): 0 for every sample where q is the posterior
    landing = scores @ root + eps
    centred = eps - eps.mean(0)
    a = centred.T @ landing / (len(eps) - 1)  # E[eps landing'], the mean of either taken out
    return log_p, landing.mean(0), 0.5 * (a + a.T), len(eps)


def _price(
    log_density: LogDensity, mean: Array, root: Array, eps: Array
) -> tuple[Array, Array, Array, int]:
    """The same by second derivatives along the columns of L."""

    def one(e: Array) -> tuple[Array, Array, Array]:
        z = mean + root @ e

        def slope(x: Array) -> tuple[Array, tuple[Array, Array]]:
            value, g = jax.value_and_grad(lambda x: log_density(z + root @ x))(x)
            return g, (value, g)

        curvature, (value, g) = jax.jacfwd(slope, has_aux=True)(jnp.zeros_like(e))
        return value, g, curvature

    log_p, g, curvature = jax.vmap(one)(eps)
    a = jnp.eye(len(mean), dtype=mean.dtype) + curvature.mean(0)
    return log_p, (g + eps).mean(0), 0.5 * (a + a.T), 2 * eps.size
