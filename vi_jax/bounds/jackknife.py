"""The jackknife corrections of the importance-weighted bound."""

import math

import jax
import jax.numpy as jnp

from vi_jax.attributes import declare
from vi_jax.bounds._check import check_log_w
from vi_jax.bounds.iwae import iwae


@declare(smooth=True, example={"order": 0})
def jackknife(log_w: jax.Array, *, order: int = 1) -> jax.Array:
    """sum_j c_j mean of IWAE over the subsets that leave out j samples, j = 0..m: JVI-m (Nowozin
    2018, eq. 10), with c_j = (-1)^j (K - j)^m / ((m - j)! j!).

    The bias of IWAE, O(1/K), becomes O(1/K^(m + 1)), and with it goes the guarantee to be below log
    p(x). Costs K^m logsumexps.

    Args:
      log_w: [K], K > m.
      order: m, 0 (IWAE), 1 or 2.

    Returns:
      Nats, a scalar.

    Raises:
      ValueError: log_w is not [K], the order is not 0, 1 or 2, or K <= m.
    """
    num = check_log_w(log_w).shape[0]
    if order not in (0, 1, 2) or num <= order:
        raise ValueError(
            f"jackknife expects order 0, 1 or 2 and more samples than that; got order {order} and "
            f"{num} samples."
        )
    means = [iwae(log_w), *(_leave_out(log_w, j) for j in range(1, order + 1))]
    coefficients = [
        (-1) ** j * (num - j) ** order / (math.factorial(order - j) * math.factorial(j))
        for j in range(order + 1)
    ]
    return sum(
        (c * mean for c, mean in zip(coefficients, means, strict=True)),
        start=jnp.zeros((), log_w.dtype),
    )


def _leave_out(log_w: jax.Array, size: int) -> jax.Array:
    """The mean of IWAE over all subsets that leave out `size` samples, 1 or 2."""
    num = log_w.shape[0]
    index = jnp.arange(num)

    def without(i: jax.Array, j: jax.Array) -> jax.Array:
        kept = (index != i) & (index != j)
        return jax.nn.logsumexp(jnp.where(kept, log_w, -jnp.inf)) - jnp.log(num - size)

    if size == 1:
        return jax.vmap(lambda i: without(i, i))(index).mean()
    rows, columns = jnp.triu_indices(num, 1)
    return jax.lax.map(lambda pair: without(*pair), (rows, columns), batch_size=num).mean()
