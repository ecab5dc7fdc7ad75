"""From a trained model to the arrays of its pictures: reconstructions, prior samples, walks, the
latent plane.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import build, figures
from experiments.measure import Measures

WALK = 11  # pictures from one test example to another
PLANE = 15  # pictures along each side of the latent plane


def make_decode_mean(model: vi.Model, config: Any, num_levels: int) -> Any:
    """z [n, D] -> E[x | z] as grey in [0, 1], [n, *x_shape], a numpy array."""
    densities: Any = model.densities
    decode = jax.jit(
        lambda params, z: jax.vmap(lambda z: _mean(densities.decode(params, None, z)))(z)
    )
    return lambda params, z: build.to_unit(config, decode(params, z), num_levels)


def samples(
    key: jax.Array, model: vi.Model, params: vi.types.Params, decode_mean: Any, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """`num` draws z from the prior [num, D] and E[x | z] [num, *x_shape]."""
    densities: Any = model.densities
    z = densities.prior(params, None).sample(key, (num,))
    return np.asarray(z), decode_mean(params, z)


def walk(
    params: vi.types.Params, decode_mean: Any, start: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """E[x | z] on straight lines between posterior means: start, end [rows, D] -> [rows, WALK,
    *x_shape].
    """
    t = np.linspace(0.0, 1.0, WALK, dtype=start.dtype)[:, None]
    return np.stack([decode_mean(params, a + t * (b - a)) for a, b in zip(start, end, strict=True)])


def pairs(
    labels: np.ndarray | None, num_examples: int, rows: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the examples at both ends of each walk: the first of each class to the first of the
    next, where there are labels.
    """
    if labels is None:
        first = np.arange(min(2 * rows, num_examples - num_examples % 2))
        return first[::2], first[1::2]
    classes = np.unique(labels)
    ends = np.array([int(np.flatnonzero(labels == label)[0]) for label in classes])
    return ends[:rows], np.roll(ends, -1)[:rows]


def draw_all(
    folder: Path,
    *,
    key: jax.Array,
    model: vi.Model,
    params: vi.types.Params,
    config: Any,
    num_levels: int,
    x: jax.Array,
    labels: np.ndarray | None,
    measures: Measures,
    num_samples: int = 64,
) -> list[Path]:
    """Every picture but the learning curves, as PNG files in `folder`; x [N, *x_shape] is the
    evaluation split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = config.name
    decode_mean = make_decode_mean(model, config, num_levels)
    grey = build.to_unit(config, np.asarray(x[:20]), num_levels)
    split = config.eval.split
    paths = [
        figures.reconstructions(
            folder / "reconstructions.png",
            grey,
            decode_mean(params, measures.latent_mean[:20]),
            title=f"{name}: {split} reconstructions, E[x | z] at the posterior mean",
        ),
        figures.image_grid(
            folder / "samples.png",
            samples(key, model, params, decode_mean, num_samples)[1],
            title=f"{name}: samples from the prior, E[x | z] for z ~ p(z)",
        ),
    ]
    left, right = pairs(labels, x.shape[0])
    means = measures.latent_mean
    paths.append(
        figures.interpolation(
            folder / "interpolation.png",
            walk(params, decode_mean, means[left], means[right]),
            title=f"{name}: walks between {split} examples",
            left=build.to_unit(config, np.asarray(x[left]), num_levels),
            right=build.to_unit(config, np.asarray(x[right]), num_levels),
        )
    )
    if measures.kl.ndim == 1:
        paths.append(
            figures.kl_per_dimension(
                folder / "kl_per_dimension.png",
                measures.kl,
                measures.active,
                title=f"{name}: KL of each latent dimension, {split}",
            )
        )
    return paths + _plane(folder, name, split, params, decode_mean, means, labels)


def _plane(
    folder: Path,
    name: str,
    split: str,
    params: Any,
    decode_mean: Any,
    means: np.ndarray,
    labels: np.ndarray | None,
) -> list[Path]:
    num_latents = means.shape[1]
    if num_latents == 2:
        points = means
        what = "posterior means"
        axes = ("z1", "z2")
    else:
        points, explained = figures.pca_2d(means)
        first, second = (
            f"principal component {i + 1} ({100 * part:.0f} % of variance)"
            for i, part in enumerate(explained)
        )
        axes = (first, second)
        what = f"posterior means of {num_latents} latents, projected"
    title = f"{name}: {what}, {split}"
    paths = [
        figures.latent_plane(
            folder / "latent_plane.png", points, labels, title=title, xlabel=axes[0], ylabel=axes[1]
        )
    ]
    if num_latents == 2:
        extent = (-2.0, 2.0)
        grid = figures.manifold_grid(PLANE, extent)
        z = jnp.asarray(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), jnp.float32)
        images = decode_mean(params, z)
        images = images.reshape(PLANE, PLANE, *images.shape[1:])
        paths.append(
            figures.manifold(
                folder / "manifold.png",
                images,
                extent=extent,
                title=f"{name}: E[x | z] over the latent plane",
            )
        )
    return paths


def _mean(p: Any) -> jax.Array:
    """E[x | z]; for classes that are levels, the mean level."""
    if hasattr(p, "logits") and p.logits.ndim > len(p.batch_shape):
        return jax.nn.softmax(p.logits) @ jnp.arange(p.logits.shape[-1], dtype=p.logits.dtype)
    return p.mean
