"""Simulation-based calibration: does the inference return what the data were made from?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.types import Array


class Calibration(NamedTuple):
    """Of each latent, over simulations."""

    share: Array  # [N, D] in (0, 1): of the guide's draws, those below the latent that made the data
    uniform_p: Array  # [D], of the Kolmogorov-Smirnov test that shares are uniform: SBC, the marginals are exact
    symmetric_p: Array  # [D], of the like test of shares against 1 - shares: VSBC, the means are not biased

    @property
    def mean_share(self) -> Array:
        """[D]: under 0.5 where the guide lies above the truth, over 0.5 where below."""
        return self.share.mean(0)


def calibrate(
    key: Array,
    simulate: Callable[[Array], tuple[Array, Any]],
    infer: Callable[[Array, Any], Any],
    *,
    num_simulations: int = 500,
    num_draws: int = 200,
    batch_size: int = 50,
) -> Calibration:
    """Draws latents from the prior and data from them, infers, and ranks each latent among the guide's draws.

    With the exact posterior the ranks are uniform (Talts et al. 2018, theorem 1). A variational guide is too narrow and fails
    that; whether it is *centred* shows in the symmetry of the ranks (Yao et al. 2018, sec. 3.2 and proposition 2), which is what
    point estimates need.

    Args:
      key: one typed PRNG key.
      simulate: key -> (z [D], data), from the prior and the likelihood.
      infer: (key, data) -> a guide over [D]: an encoder, or a method's init and steps run to their end; traced under vmap.
      num_simulations: N; p-values are asymptotic, take some hundreds.
      num_draws: of each guide.
      batch_size: simulations at a time.

    Returns:
      A Calibration; p-values near 0 speak against. With D latents, compare with 0.05 / D.
    """

    def one(key: Array) -> Array:
        key_simulate, key_infer, key_draws = jax.random.split(key, 3)
        z, data = simulate(key_simulate)
        draws = infer(key_infer, data).sample(key_draws, (num_draws,))
        return (jnp.sum(draws < z, axis=0) + 0.5) / (num_draws + 1)

    share = jax.lax.map(one, jax.random.split(key, num_simulations), batch_size=min(batch_size, num_simulations))
    return Calibration(share, jax.vmap(_uniform_p, 1)(share), jax.vmap(_symmetric_p, 1)(share))


def _uniform_p(x: Array) -> Array:
    x, num = jnp.sort(x), x.shape[0]
    grid = jnp.arange(num)
    distance = jnp.maximum(jnp.max((grid + 1) / num - x), jnp.max(x - grid / num))
    return kolmogorov(distance * num**0.5)


def _symmetric_p(x: Array) -> Array:
    """Kolmogorov-Smirnov of shares against 1 - shares: the distance of a sample from its own mirror image, max_k |S_k| / N with S_k
    the sum of the signs of x - 1/2 from the outside in, a random walk under symmetry (Butler 1969)."""
    num = x.shape[0]
    order = jnp.argsort(-jnp.abs(x - 0.5))
    walk = jnp.cumsum(jnp.sign(x - 0.5)[order])
    return brownian_supremum(jnp.max(jnp.abs(walk)) / num**0.5)


def kolmogorov(x: Array) -> Array:
    """Pr(sup |B| > x) of a Brownian bridge: 2 sum_j (-1)^(j-1) exp(-2 j^2 x^2)."""
    j = jnp.arange(1, 101)
    tail = 2 * jnp.sum((-1.0) ** (j - 1) * jnp.exp(-2 * (j * x) ** 2))
    return jnp.where(x < 0.2, 1.0, jnp.clip(tail, 0.0, 1.0))


def brownian_supremum(x: Array) -> Array:
    """Pr(sup_{t <= 1} |W_t| > x) of a Brownian motion: 1 - (4/pi) sum_k (-1)^k / (2k+1) exp(-(2k+1)^2 pi^2 / (8 x^2))."""
    k = jnp.arange(50)
    odd = 2 * k + 1
    below = (4 / jnp.pi) * jnp.sum((-1.0) ** k / odd * jnp.exp(-((odd * jnp.pi) ** 2) / (8 * jnp.maximum(x, 1e-3) ** 2)))
    return jnp.clip(1 - below, 0.0, 1.0)
