"""Pictures of a trained model: reconstructions, prior samples, interpolations, the latent plane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import figures
from experiments.evals import plane
from experiments.evals.base import Measures, Subject
from experiments.evals.decoding import guess, make_mean_of, rows_of, to_grey
from experiments.evals.latents import by_site
from experiments.run import effort
from vi_jax import files
from vi_jax.distributions import from_noise, to_noise
from vi_jax.types import num_examples

SHOWN = 20  # examples that are reconstructed
PATH_POINTS = 11  # images from one example to another


class Decoded(NamedTuple):
    """Arrays that pictures show: grey levels in [0, 1]."""

    samples: np.ndarray  # E[x | z] for z ~ p(z), [num, *x_shape]
    originals: np.ndarray  # [n, *x_shape]
    reconstructions: np.ndarray  # [n, *x_shape]
    paths: np.ndarray  # [rows, PATH_POINTS, *x_shape]; rows of 0 where there is no path
    ends: tuple[np.ndarray, np.ndarray]  # the examples at both ends of each path
    how: str  # how a path goes
    z: dict[str, np.ndarray]  # the latents of the samples, by site


def decode(
    key: jax.Array,
    subject: Subject,
    params: Any,
    x: Any,
    labels: np.ndarray | None,
    *,
    num_samples: int,
) -> Decoded:
    """What the pictures of a model with densities show; x, leaves [N, ...], is a split."""
    key_prior, key_shown, key_ends = jax.random.split(key, 3)
    num = num_examples(x)
    contexts = rows_of(x, np.arange(num_samples) % num)
    shown = rows_of(x, np.arange(min(SHOWN, num)))
    left, right = pairs(labels, num)
    mean_of = make_mean_of(subject)
    z = _prior_samples(key_prior, subject.model, params, contexts)
    guessed = _guesses(key_shown, subject.model, params, shown)
    starts = rows_of(x, left)
    ends = rows_of(x, right)
    paths, how = _paths(key_ends, subject.model, params, starts, ends, mean_of)
    return Decoded(
        mean_of(params, contexts, z),
        to_grey(subject, shown),
        mean_of(params, shown, guessed),
        paths,
        (to_grey(subject, starts), to_grey(subject, ends)),
        how,
        {site: np.asarray(leaf) for site, leaf in by_site(z).items()},
    )


def draw(
    folder: Path,
    decoded: Decoded,
    subject: Subject,
    params: Any,
    x: Any,
    labels: np.ndarray | None,
    measures: Measures,
) -> list[Path]:
    """Draws them, the KL of each latent dimension and the latent plane, as PNG files."""
    files.make_folder(folder)
    name = subject.config.name
    split = subject.config.eval.split
    paths = [
        figures.reconstructions(
            folder / "reconstructions.png",
            decoded.originals,
            decoded.reconstructions,
            title=f"{name}: {split} reconstructions, E[x | z] at the posterior mean"
            f"{_of_binarised(subject)}",
        ),
        figures.image_grid(
            folder / "samples.png",
            decoded.samples,
            title=f"{name}: samples from the prior, E[x | z] for z ~ p(z)",
        ),
    ]
    if len(decoded.paths):
        left, right = decoded.ends
        paths.append(
            figures.interpolation(
                folder / "interpolation.png",
                decoded.paths,
                title=f"{name}: interpolation between {split} examples, {decoded.how}",
                left=left,
                right=right,
            )
        )
    paths += _kl_figures(folder, name, split, measures)
    return paths + plane.draw(folder, subject, params, x, labels, measures)


def draw_kl(folder: Path, subject: Subject, measures: Measures) -> list[Path]:
    """Draws the KL of each latent dimension alone."""
    files.make_folder(folder)
    return _kl_figures(folder, subject.config.name, subject.config.eval.split, measures)


def _of_binarised(subject: Subject) -> str:
    """Says that originals are drawn as 0 or 1, where they are."""
    is_drawn = subject.config.data.binarisation == "dynamic" and subject.units.num_levels > 2
    return "; originals binarised, as the model sees them" if is_drawn else ""


def pairs(
    labels: np.ndarray | None, num_examples: int, rows: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the examples at both ends of each path: the first of each class to the first of the
    next, where there are labels.
    """
    if labels is None:
        first = np.arange(min(2 * rows, num_examples - num_examples % 2))
        return first[::2], first[1::2]
    classes = np.unique(labels)
    ends = np.array([int(np.flatnonzero(labels == label)[0]) for label in classes])
    return ends[:rows], np.roll(ends, -1)[:rows]


def _prior_samples(key: jax.Array, model: vi.Model, params: Any, contexts: Any) -> Any:
    """z ~ p(z), one for each context, leaves [n, ...]."""
    densities: Any = model.densities

    @effort.jit_evaluation
    def sample(params: Any, keys: jax.Array, x: Any) -> Any:
        return jax.vmap(lambda key, x: densities.prior(params, x).sample(key))(keys, x)

    return sample(params, jax.random.split(key, num_examples(contexts)), contexts)


def _guesses(key: jax.Array, model: vi.Model, params: Any, x: Any) -> Any:
    """The guide's mean of z for each example, or a sample where it states none or z is discrete."""
    densities: Any = model.densities

    def one(key: jax.Array, x: Any) -> Any:
        return guess(key, densities.guide(params, x))

    return effort.jit_evaluation(jax.vmap(one))(jax.random.split(key, num_examples(x)), x)


def _paths(
    key: jax.Array,
    model: vi.Model,
    params: Any,
    starts: Any,
    ends: Any,
    mean_of: Callable[[Any, Any, Any], np.ndarray],
) -> tuple[np.ndarray, str]:
    """E[x | z] on paths between the guesses of examples, [rows, PATH_POINTS, *x_shape]: straight
    lines of the prior's noise, or of z where the prior is no transport of noise; none for discrete
    latents.
    """
    densities: Any = model.densities
    key_start, key_end = jax.random.split(key)
    a = _guesses(key_start, model, params, starts)
    b = _guesses(key_end, model, params, ends)
    is_real = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(a))
    q = jax.eval_shape(lambda x: densities.guide(params, x), rows_of(starts, np.array(0)))
    if not is_real or not getattr(q, "has_rsample", True):
        return np.zeros((0,)), ""
    t = jnp.linspace(0.0, 1.0, PATH_POINTS)

    def along_noise(x: Any, a: Any, b: Any) -> Any:
        prior = densities.prior(params, x)
        noise = (to_noise(prior, a), to_noise(prior, b))
        return jax.vmap(lambda t: from_noise(prior, _between(*noise, t)))(t)

    def straight(x: Any, a: Any, b: Any) -> Any:
        del x
        return jax.vmap(lambda t: _between(a, b, t))(t)

    try:
        z = effort.jit_evaluation(jax.vmap(along_noise))(starts, a, b)
        how = "straight lines of the prior's noise"
    except ValueError:  # this prior is no transport of noise
        z = effort.jit_evaluation(jax.vmap(straight))(starts, a, b)
        how = "straight lines of z"
    rows = num_examples(starts)
    contexts = jax.tree.map(lambda leaf: jnp.repeat(leaf, PATH_POINTS, 0), starts)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), z)
    images = mean_of(params, contexts, flat)
    return images.reshape(rows, PATH_POINTS, *images.shape[1:]), how


def _between(a: Any, b: Any, t: jax.Array) -> Any:
    return jax.tree.map(lambda a, b: a + t * (b - a), a, b)


def _kl_figures(folder: Path, name: str, split: str, measures: Measures) -> list[Path]:
    """One for each site whose KL is known by dimension."""
    kls = measures.arrays["kl_per_dimension"]
    active = measures.arrays.get("active", {})
    drawn = []
    for site, kl in kls.items():
        flags = active.get(site)
        if np.ndim(kl) != 1 or flags is None or flags.shape != kl.shape:
            continue
        suffix = "" if len(kls) == 1 else f"_{site}"
        of_site = "" if len(kls) == 1 else f" of {site}"
        path = folder / f"kl_per_dimension{suffix}.png"
        title = f"{name}: KL of each latent dimension{of_site}, {split}"
        drawn.append(figures.kl_per_dimension(path, kl, flags, title=title))
    return drawn
