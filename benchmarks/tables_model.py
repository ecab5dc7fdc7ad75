"""The models that `benchmarks.tables` fits: `vi_jax.models.table_vae` of a linear decoder and the
guide in closed form, and what is believed of its weights before the rows are seen.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.models.table_vae import Column, table_vae
from vi_jax.types import Array, Model, Params


class Shape(NamedTuple):
    """What is static of a model: z ~ N(0, I), one kind of columns around W' z + b."""

    num_latents: int
    kind: str = "student_t"  # or gaussian, poisson, negative_binomial
    guide: str = "linearised_encoder"  # or linearised: the posterior, of normal columns
    hidden: tuple[int, ...] = (32, 32)  # of the encoder
    min_scale: float = 0.01


class Beliefs(NamedTuple):
    """The prior of a part's parameters, for maximum a posteriori: with s_j the scale of column j,
    W_kj ~ N(0, s_j^2 / weights) and b_j ~ N(0, s_j^2 / biases), and s_j^2 inverse gamma around its
    mean over parts, or over the columns of a single part, worth that of `scales` rows.
    """

    weights: float = 0.0
    biases: float = 0.0
    scales: float = 0.0


@functools.lru_cache
def table_model(num_columns: int, shape: Shape) -> Model:
    """The model of rows {"values": [D], "observed": [D]}; one object for one shape, so that
    programs that are compiled for it serve again.
    """
    start = 30.0 if shape.kind == "negative_binomial" else 1.0  # dispersion; or scale
    return table_vae(
        [Column(shape.kind, scale=start)] * num_columns,
        num_latents=shape.num_latents,
        hidden=shape.hidden,
        decoder_hidden=(),
        activation=nn.silu,
        guide=shape.guide,  # type: ignore[arg-type]
        min_scale=shape.min_scale,
    )


def started(params: Params, weights: Array, biases: Array) -> Params:
    """Parameters with the decoder's own start moved by W [K, D], and at b [D]."""
    layer = params["decoder"]["Dense_0"]
    moved = {"kernel": layer["kernel"] + weights, "bias": biases}
    return {**params, "decoder": {"Dense_0": moved}}


def scales_of(params: Params, shape: Shape) -> Array:
    """s [D] of real columns."""
    [own] = params["likelihood"].values()
    [log_scale] = [leaf for name, leaf in own.items() if name in ("log_sigma", "log_scale")]
    return shape.min_scale + jnp.exp(log_scale)


def penalty(parts: Params, shape: Shape, beliefs: Beliefs) -> Array:
    """-log p(parameters) of parts, leaves [C, ...], up to a constant, nats.

    The gradient of the priors of W and b moves W and b alone.
    """
    if not any(beliefs):
        return jnp.zeros(())
    scales = jax.vmap(lambda params: scales_of(params, shape))(parts)  # [C, D]
    precision = jax.lax.stop_gradient(scales) ** -2.0
    layer = parts["decoder"]["Dense_0"]
    of_weights = jnp.sum(layer["kernel"] ** 2 * precision[:, None])
    of_biases = jnp.sum(layer["bias"] ** 2 * precision)
    over = 0 if len(scales) > 1 else 1
    centre = jax.lax.stop_gradient(jnp.mean(scales**2, axis=over, keepdims=True))
    of_scales = jnp.sum(2.0 * jnp.log(scales) + centre / scales**2)
    return 0.5 * (
        beliefs.weights * of_weights + beliefs.biases * of_biases + beliefs.scales * of_scales
    )


def principal_weights(values: np.ndarray, num_latents: int) -> np.ndarray:
    """W [K, D] of the principal components of rows in which what is missing is 0."""
    _, sizes, directions = np.linalg.svd(values, full_matrices=False)
    weights = 0.9 * directions[:num_latents].T * sizes[:num_latents] / np.sqrt(len(values))
    padded = np.pad(weights, [(0, 0), (0, num_latents - weights.shape[1])])
    return padded.T.astype(np.float32)


def starting_biases(
    values: np.ndarray, num_parts: int, num_seeds: int, bias: Any = 0.0
) -> np.ndarray:
    """b [seeds, C, D]: k-means of the rows, or the bias of a single part."""
    if num_parts == 1:
        return np.broadcast_to(bias, (num_seeds, 1, values.shape[1])).astype(np.float32)
    from sklearn.cluster import KMeans

    found = [
        KMeans(num_parts, n_init=1, random_state=seed).fit(values) for seed in range(num_seeds)
    ]
    return np.stack([one.cluster_centers_ for one in found]).astype(np.float32)
