"""InfoVAE: the aggregate posterior brought to the prior by maximum mean discrepancy (Zhao et al.
2017).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from vi_jax.losses.bound import densities_of
from vi_jax.losses.elbo import negative_elbo
from vi_jax.losses.info import Info, Loss
from vi_jax.types import Array, Model, Params, num_examples

Kernel = Literal["inverse_multiquadric", "gaussian"]
KERNELS = ("inverse_multiquadric", "gaussian")
_PRIOR = 0xFFFFFFFE  # a number that no example has


def mmd(
    model: Model,
    *,
    alpha: float = 1.0,
    weight: float = 100.0,
    kernel: Kernel = "inverse_multiquadric",
    scale: float = 1.0,
) -> Loss:
    """-E_q[log p(x | z)] + (1 - alpha) KL(q(z | x) || p(z)) + weight MMD^2(q(z), p(z)), minimised
    (Zhao et al. 2017, sec. 3).

    The weight is alpha + lambda - 1 in the paper's letters. At alpha = 1 the KL of single examples
    costs nothing (MMD-VAE), and nothing keeps their guides wide but the decoder; the metric `elbo`
    is a bound of log p(x) all the same.

    Args:
      model: of one example, with densities; z may have several sites.
      alpha: 1 less the weight of the KL.
      weight: of the squared discrepancy.
      kernel, scale: see `squared_mmd`.

    Returns:
      A Loss; metrics of `negative_elbo`, with `mmd`, the estimate of the squared discrepancy, which
      is unbiased and so may be negative.

    Raises:
      ValueError: the kernel or its scale cannot be, the model has no densities, or (when traced)
        the batch has fewer than 2 examples.
    """
    _require(kernel, scale)
    densities = densities_of(model, "mmd")
    elbo = negative_elbo(model, beta=1.0 - alpha)

    def loss(params: Params, key: Array, batch: Any, step: Array) -> tuple[Array, Info]:
        key_guide = jax.random.clone(key)  # the draws of the ELBO: one program makes them once
        key_prior = jax.random.fold_in(jax.random.clone(key), _PRIOR)
        value, info = elbo(params, key, batch, step)

        def of_guide(key: Array, x: Any) -> Array:
            return _row(densities.guide(info.params, x).sample(key))

        def of_prior(key: Array, x: Any) -> Array:
            return _row(densities.prior(info.params, x).sample(key))

        size = num_examples(batch)
        z = jax.vmap(of_guide)(jax.random.split(key_guide, size), batch)
        z_prior = jax.vmap(of_prior)(jax.random.split(key_prior, size), batch)
        distance = squared_mmd(z, z_prior, kernel=kernel, scale=scale)
        metrics = {**info.metrics, "mmd": distance}
        return value + weight * distance, Info(metrics, info.params, info.moved)

    return loss


def squared_mmd(
    a: Array, b: Array, *, kernel: Kernel = "inverse_multiquadric", scale: float = 1.0
) -> Array:
    """MMD^2 of two samples without bias (Gretton et al. 2012, eq. 3): a U-statistic.

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_ij k(a_i, b_j)

    Args:
      a: [n, D], independent samples, n >= 2.
      b: [m, D], likewise.
      kernel: with C = 2 D scale^2, the mean of |a - b|^2 between two samples of N(0, scale^2 I),
        "inverse_multiquadric" is C / (C + |a - b|^2) (Tolstikhin et al. 2018, sec. 4), whose
        gradient reaches far, and "gaussian" exp(-|a - b|^2 / C).
      scale: the standard deviation of the prior's coordinates.

    Returns:
      A scalar, whose expectation is 0 where both have one law and positive where they have not.

    Raises:
      ValueError: the kernel or its scale cannot be, or a sample has fewer than 2 rows.
    """
    _require(kernel, scale)
    if min(a.shape[0], b.shape[0]) < 2:
        raise ValueError(
            "the maximum mean discrepancy expects at least 2 examples of either kind; got "
            f"{a.shape[0]} and {b.shape[0]}."
        )
    width = 2.0 * a.shape[1] * scale**2

    def similar(a: Array, b: Array) -> Array:
        squares = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
        if kernel == "gaussian":
            return jnp.exp(-squares / width)
        return width / (width + squares)

    def among(sample: Array) -> Array:
        num = sample.shape[0]
        return (similar(sample, sample).sum() - num) / (num * (num - 1))  # k(a, a) = 1

    return among(a) + among(b) - 2.0 * similar(a, b).mean()


def _row(z: Any) -> Array:
    """All coordinates of one z, [D]."""
    return ravel_pytree(z)[0]


def _require(kernel: str, scale: float) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"kernel is one of {', '.join(map(repr, KERNELS))}; got {kernel!r}.")
    if not scale > 0:
        raise ValueError(f"the scale of a kernel is positive; got {scale}.")
