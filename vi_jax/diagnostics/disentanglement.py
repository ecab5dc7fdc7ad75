"""The mutual information gap: whether each factor that made the data has a latent of its own (Chen
et al. 2018, sec. 4).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.losses import densities_of
from vi_jax.losses.total_correlation import by_coordinate
from vi_jax.types import Array, Model, Params, num_examples


class Gap(NamedTuple):
    """The mutual information gap of K factors."""

    mean: float  # over the factors; 1: one latent tells each of them, and no other does
    stderr: float  # over the samples of z
    of_factor: np.ndarray  # [K]
    latent: np.ndarray  # which one tells most of each factor, [K]


def factor_information(
    key: Array,
    model: Model,
    params: Params,
    x: Any,
    factors: np.ndarray,
    *,
    num_samples: int = 1_000,
    batch_size: int = 256,
) -> Array:
    """log q(z_d | v_k) - log q(z_d) at samples of z, whose mean over them is I(z_d; v_k), nats
    (Chen et al. 2018, appendix B).

    Both densities are means over the examples themselves: q(z_d) of q(z_d | x_n) over all N, and
    q(z_d | v_k) over those whose factor k has the value of the sample's own example. So the
    information is by samples of z, not by their means, and that of the N examples: give it a
    whole split.

    Args:
      key: one typed PRNG key.
      model, params: with a guide over one vector [D] of independent coordinates.
      x: pytree of arrays [N, ...].
      factors: the number of each factor's value, ints [N, K].
      num_samples: S, of z; of the first examples, one each, or all N where there are fewer.
      batch_size: guides at a time.

    Returns:
      [S, D, K].

    Raises:
      ValueError: the model has no densities, its guide does not factorise, or there is not one row
        of factors for each example.
    """
    num = num_examples(x)
    guide = densities_of(model, "factor_information").guide
    values = jnp.asarray(factors, jnp.int32)
    if values.ndim != 2 or values.shape[0] != num:
        raise ValueError(
            f"factors are whole numbers [N, K] of the {num:,} examples; got shape {values.shape}."
        )
    num_samples = min(num_samples, num)
    some = jax.tree.map(lambda leaf: leaf[:num_samples], x)
    draw = jax.vmap(lambda key, x: guide(params, x).sample(key))
    z = draw(jax.random.split(key, num_samples), some)
    own = values[:num_samples]

    # sums of q(z_sd | x_n) over all n, and over those of the same value, batch by batch
    def add(totals: Array, rows: tuple[Any, Array, Array]) -> tuple[Array, None]:
        x, given, counts = rows
        each = jax.vmap(lambda x: jax.vmap(lambda z: by_coordinate(guide(params, x), z))(z))(x)
        each = jnp.where(counts[:, None, None], each, -jnp.inf)  # [b, S, D]
        largest = each.max(0)
        is_same = (given[:, None, :] == own).astype(each.dtype)  # [b, S, K]
        with_all = jnp.concatenate([is_same, jnp.ones_like(is_same[..., :1])], axis=-1)
        sums = jnp.einsum("bsd,bsk->sdk", jnp.exp(each - largest), with_all)
        return jnp.logaddexp(totals, jnp.log(sums) + largest[..., None]), None

    size = min(batch_size, num)
    rows = jnp.arange(-(-num // size) * size).reshape(-1, size)
    batches = jax.tree.map(lambda leaf: leaf[rows % num], (x, values))
    none = jnp.full((*z.shape, values.shape[1] + 1), -jnp.inf, z.dtype)
    totals, _ = jax.lax.scan(add, none, (*batches, rows < num))
    log_q = totals[..., -1:] - jnp.log(num)
    num_same = (own[:, None, :] == values).sum(1)  # [S, K]
    return totals[..., :-1] - jnp.log(num_same)[:, None, :] - log_q


def information_gap(information: np.ndarray, factors: np.ndarray) -> Gap:
    """The mutual information gap (Chen et al. 2018, eq. 6): of each factor, how much more the
    latent with most information on it has than the second one, as a share of the factor's entropy.

    Args:
      information: of `factor_information`, [S, D, K].
      factors: ints [N, K].

    Raises:
      ValueError: there are fewer than 2 latents, or a factor has one value only.
    """
    information = np.asarray(information, np.float64)
    entropies = np.array([_entropy(column) for column in np.asarray(factors).T])
    if information.shape[1] < 2 or not np.all(entropies > 0):
        raise ValueError(
            "a gap expects at least 2 latents, and factors of at least 2 values each; got "
            f"{information.shape[1]} latents and entropies {entropies.round(3).tolist()}."
        )
    order = np.argsort(information.mean(0), axis=0)  # [D, K]
    each = np.arange(len(entropies))
    pointwise = information[:, order[-1], each] - information[:, order[-2], each]
    shares = pointwise / entropies  # [S, K]
    of_sample = shares.mean(1)
    stderr = of_sample.std(ddof=1) / len(of_sample) ** 0.5
    return Gap(float(of_sample.mean()), float(stderr), shares.mean(0), order[-1])


def _entropy(values: np.ndarray) -> float:
    """Of how often each value is there, nats."""
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
