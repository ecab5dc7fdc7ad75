"""The VR-IWAE bound: between the ELBO and IWAE, a lower bound for every K."""

import jax

from vi_jax.attributes import declare
from vi_jax.bounds.renyi import renyi


def _path_factor(weights: jax.Array, *, alpha: float) -> jax.Array:
    """Slope w ~ w_k^(1 - alpha), second derivative (1 - alpha) (w - w^2): the weights of Daudel et
    al. (2023, theorem 2) over w.
    """
    return alpha + (1.0 - alpha) * weights


@declare(smooth=True, path_factor=_path_factor, example={"alpha": 0.4})
def vr_iwae(log_w: jax.Array, *, alpha: float) -> jax.Array:
    """1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha) with 0 <= alpha < 1 (Daudel et al. 2023, eq.
    7).

    The value of VR-alpha, restricted to where its mean is a lower bound of log p(x) for every K:
    IWAE at 0, towards the ELBO at 1.

    Args:
      log_w: [K].
      alpha: from 0 to below 1.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or alpha is outside of [0, 1).
    """
    if not 0.0 <= alpha < 1.0:
        raise ValueError(
            f"vr_iwae expects 0 <= alpha < 1; got {alpha}. Take renyi for other alphas, elbo for "
            "alpha = 1."
        )
    return renyi(log_w, alpha=alpha)
