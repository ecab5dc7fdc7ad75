"""The latent plane: posterior means, and the images that are decoded over it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures
from experiments.evals.base import Measures, Subject
from experiments.evals.decoding import make_mean_of, rows_of
from experiments.evals.latents import by_site

PLANE_POINTS = 15  # images along each side of the latent plane
PLANE_EXTENT = (-2.0, 2.0)


def draw(
    folder: Path,
    subject: Subject,
    params: Any,
    x: Any,
    labels: np.ndarray | None,
    measures: Measures,
) -> list[Path]:
    """Posterior means in the plane, of two latents or of their two main directions; and what is
    decoded over the plane, of two latents.
    """
    name = subject.config.name
    split = subject.config.eval.split
    by_name = measures.arrays["latent_mean"]
    means = np.concatenate([np.asarray(each) for each in by_name.values()], axis=1)
    num_latents = means.shape[1]
    if num_latents < 2:
        return []
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
    path = folder / "latent_plane.png"
    drawn = [
        figures.latent_plane(path, points, labels, title=title, xlabel=axes[0], ylabel=axes[1])
    ]
    is_of_images = subject.units.support != "table"
    if num_latents == 2 and is_of_images and _is_plane(subject, params, x):
        drawn.append(_manifold(folder, subject, params, x))
    return drawn


def _is_plane(subject: Subject, params: Any, x: Any) -> bool:
    """Whether z is one real vector of two numbers."""
    densities: Any = subject.model.densities

    def sample(key: jax.Array, x: Any) -> Any:
        return densities.guide(params, x).sample(key)

    z = jax.eval_shape(sample, jax.random.key(0), rows_of(x, np.array(0)))
    sites = by_site(z)
    leaf = next(iter(sites.values()))
    is_real = jnp.issubdtype(leaf.dtype, jnp.floating)
    return len(sites) == 1 and not isinstance(z, dict) and leaf.shape == (2,) and bool(is_real)


def _manifold(folder: Path, subject: Subject, params: Any, x: Any) -> Path:
    grid = figures.manifold_grid(PLANE_POINTS, PLANE_EXTENT)
    z = jnp.asarray(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), jnp.float32)
    contexts = rows_of(x, np.zeros(len(z), int))
    images = make_mean_of(subject)(params, contexts, z)
    images = images.reshape(PLANE_POINTS, PLANE_POINTS, *images.shape[1:])
    return figures.manifold(
        folder / "manifold.png",
        images,
        extent=PLANE_EXTENT,
        title=f"{subject.config.name}: E[x | z] over the latent plane",
    )
