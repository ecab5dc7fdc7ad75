"""The thermodynamic variational objective."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w
from vi_jax.bounds._means import tilted_mean


def tvo_schedule(num_terms: int, *, first: float = 1e-2) -> tuple[float, ...]:
    """0, then `num_terms` - 1 temperatures log-uniform from `first` up, then 1 (Masrani et al.
    2019, sec. 6): length num_terms + 1.

    Raises:
      ValueError: num_terms is not positive, or `first` not in (0, 1).
    """
    if num_terms < 1 or not 0.0 < first < 1.0:
        raise ValueError(
            f"a schedule expects num_terms >= 1 and 0 < first < 1; got {num_terms} and {first}."
        )
    inner = np.geomspace(first, 1.0, num_terms)[:-1].tolist() if num_terms > 1 else []
    return (0.0, *inner, 1.0)


@declare(smooth=True)
def tvo(log_w: jax.Array, *, betas: Sequence[float] = (0.0, 0.1, 0.3, 1.0)) -> jax.Array:
    """sum_j (b_{j+1} - b_j) E_{pi_{b_j}}[log w], the left Riemann sum of log p(x) = int_0^1
    E_{pi_b}[log w] db with pi_b ~ q w^b (Masrani et al. 2019, eq. 9), each expectation by
    self-normalised weights w^b.

    E_{pi_b}[log w] rises with b, so that the left sum is a lower bound and the right sum
    (`tvo_upper`) an upper one; with betas (0, 1) this is the ELBO.

    Args:
      log_w: [K].
      betas: rising from 0 to 1, the schedule.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], or betas do not rise from 0 to 1.
    """
    means, widths = _means(log_w, betas)
    return (means[:-1] * widths).sum()


@declare(side="upper", smooth=True)
def tvo_upper(log_w: jax.Array, *, betas: Sequence[float] = (0.0, 0.1, 0.3, 1.0)) -> jax.Array:
    """The right Riemann sum, an upper bound (Masrani et al. 2019, eq. 10); with betas (0, 1) the
    EUBO. Arguments as for `tvo`.
    """
    means, widths = _means(log_w, betas)
    return (means[1:] * widths).sum()


def _means(log_w: jax.Array, betas: Sequence[float]) -> tuple[jax.Array, jax.Array]:
    """E_{pi_b}[log w] at each temperature [T + 1], and the widths between them [T]."""
    check_log_w(log_w)
    b = np.asarray(betas, float)
    if b.ndim != 1 or len(b) < 2 or b[0] != 0.0 or b[-1] != 1.0 or not (np.diff(b) > 0).all():
        raise ValueError(f"tvo expects betas that rise from 0 to 1; got {tuple(betas)}.")
    tilted = jax.vmap(lambda beta: tilted_mean(log_w, beta))(jnp.asarray(b[1:], log_w.dtype))
    # [T + 1]; the first is the ELBO, -inf if a weight is 0
    means = jnp.concatenate([log_w.mean()[None], tilted])
    return means, jnp.asarray(np.diff(b), log_w.dtype)
