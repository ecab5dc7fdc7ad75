"""Images with hidden pixels, filled in by the chains of `vi_jax.diagnostics.missing_pixels`: what
they say of the hidden pixels, beside each other and beside the mean training image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, facts, figures
from experiments.cli import UserError
from experiments.evals.base import batches, mean_stderr, said
from experiments.evals.decoding import rows_of
from experiments.evals.encoding import splits_of
from experiments.evals.evidence import RELIABLE
from experiments.run import heartbeat, session
from experiments.run.live import Count
from vi_jax import files
from vi_jax.diagnostics import missing_pixels
from vi_jax.diagnostics._filling import pixels_like

METHODS = {
    "pseudo_gibbs": missing_pixels.pseudo_gibbs,
    "metropolis": missing_pixels.metropolis_within_gibbs,
    "importance": missing_pixels.importance_resampling,
}
ALL = "all"
MARGINAL = "marginal"  # of each pixel alone, by the mean training image
SHOWN = 12  # images of the figure
SHOWN_DRAWS = 3  # of each of them
BATCH_NUMBERS = 8_000_000  # draws and latents of a batch, at most
TAIL = 0.05  # on either side of a 90 % interval
MIN_PROBABILITY = 1e-3  # of a pixel of the mean image


class Found(NamedTuple):
    """What a method found of N images; scores are of the hidden pixels of each."""

    mean: np.ndarray  # E[x | x_obs] in the model's units, [N, *x_shape]
    draws: np.ndarray  # [N, S, *x_shape]
    log_prob: np.ndarray  # mean log p(x_j | x_obs), nats, [N]
    rmse: np.ndarray  # of the mean, in levels from 0 to 1, [N]
    rank: np.ndarray  # share of the draws whose mean hidden pixel is below the true one, [N]
    accepted: np.ndarray  # share of accepted proposals, [N]
    k_hat: np.ndarray  # of importance weights, [N]


class Options(NamedTuple):
    """Numbers of a chain."""

    num_steps: int
    burn_in: int
    num_draws: int


def fill_images(
    config: Any,
    dataset: Any,
    workdir: Path,
    out: Path,
    *,
    method: str,
    missing: int,
    split: str,
    num: int,
    checkpoint: str,
    seed: int,
    options: Options,
) -> dict[str, Any]:
    """Hides pixels, fills them in, writes imputed.npz, imputed.json and imputed.png, and prints a
    table.

    Args:
      config, dataset, workdir: of the run.
      out: where to write.
      method: of METHODS, or ALL of them.
      missing: per cent of the pixels of an image that are hidden, each alone.
      split: whose images; the first `num` of them.
      checkpoint, seed, options: which parameters, and of the chains.

    Returns:
      What imputed.json holds.

    Raises:
      UserError: the model has no densities, or the numbers cannot be meant.
    """
    if missing > 99 or split == ALL:
        raise UserError(
            f"--missing is at most 99 per cent of an image and --split one split; got {missing} "
            f"and {split}."
        )
    splits_of(dataset, split)
    built = session.build_all(config, dataset)
    if built.model.densities is None:
        raise UserError(f"{workdir} is of a model without densities; it cannot impute.")
    params, step = session.trained_params(config, built.model, workdir, checkpoint)
    x, _ = session.evaluation_set(config, dataset, split)
    x = jax.tree.map(lambda leaf: leaf[:num], x)
    key_hidden, key_chain = jax.random.split(jax.random.key(seed))
    image = _image_of(x)
    observed = _hide(key_hidden, x, missing / 100)
    seen = np.asarray(_image_of(observed))
    scale = build.units(config, dataset.num_levels).scale
    found = {}
    chosen = list(METHODS) if method == ALL else [method]
    for number, name in enumerate(chosen):
        run = _make_chain(name, built.model, scale, options)
        found[name] = run(jax.random.fold_in(key_chain, number), params, x, observed)
    mean = facts.mean_image(dataset)
    is_binary = built.subject.units.support == "binary"
    of_mean = _by_the_mean(np.asarray(image), seen, mean / scale, scale, is_binary)
    summary = _summary({MARGINAL: of_mean, **found})
    summary = {"missing": missing, "num_images": len(image), "split": split, **summary}
    files.make_folder(out)
    files.write_json(out / "imputed.json", summary)
    last = found[chosen[-1] if method != ALL else "metropolis"]
    arrays = {"x": image, "observed": seen, "mean": last.mean, "draws": last.draws}
    files.write_npz(out / "imputed.npz", arrays, compressed=True)
    title = f"{config.name}: {missing} % of the pixels of {split} images hidden, and filled in"
    _draw(out, np.asarray(image) * scale, seen, last, scale, title)
    _say(f"{config.name}, step {step:,}", summary, out)
    return summary


def _image_of(x: Any) -> Any:
    return x["image"] if isinstance(x, dict) else x


def _hide(key: jax.Array, x: Any, share: float) -> Any:
    """Bools like x: pixels of the image are hidden, each with a probability, and nothing else."""
    image = _image_of(x)
    seen = jax.random.uniform(key, image.shape) >= share
    if not isinstance(x, dict):
        return seen
    others = {name: jnp.ones(leaf.shape, bool) for name, leaf in x.items()}
    return {**others, "image": seen}


def _make_chain(name: str, model: Any, scale: float, options: Options) -> Callable[..., Found]:
    """A function (key, params, x, observed, leaves [N, ...]) -> Found."""

    def one(key: jax.Array, params: Any, x: Any, observed: Any) -> tuple[jax.Array, ...]:
        key_chain, key_fill, key_rank = jax.random.split(key, 3)
        latents = METHODS[name](
            key_chain,
            model,
            params,
            x,
            observed,
            num_steps=options.num_steps,
            burn_in=options.burn_in,
        )
        filled = missing_pixels.fill(
            key_fill, model, params, x, observed, latents, num_draws=options.num_draws
        )
        image = pixels_like(x, filled.mean).astype(filled.mean.dtype)
        hidden = ~pixels_like(observed, filled.mean)
        draws = _image_of(filled.draws)
        count = jnp.maximum(hidden.sum(), 1)
        log_prob = jnp.where(hidden, filled.log_prob, 0.0).sum() / count
        error = jnp.where(hidden, filled.mean - image, 0.0) * scale
        rmse = jnp.sqrt((error**2).sum() / count)
        totals = jnp.where(hidden, draws, 0).reshape(draws.shape[0], -1).sum(1)
        rank = _rank(key_rank, jnp.where(hidden, image, 0).sum(), totals)
        return filled.mean, draws, log_prob, rmse, rank, latents.accepted, latents.k_hat

    program = jax.jit(jax.vmap(one, in_axes=(0, None, 0, 0)))

    def run(key: jax.Array, params: Any, x: Any, observed: Any) -> Found:
        num = len(jax.tree.leaves(x)[0])
        size = sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(x))
        most = BATCH_NUMBERS // (size * options.num_draws + 100 * options.num_steps)
        keys = jax.random.split(key, num)
        parts = []
        with (
            heartbeat.compiling(f"filling in by {name}"),
            Count(f"filling in by {name}", num, "images") as counted_so_far,
        ):
            for rows, counted in batches(num, max(1, min(most, 256))):
                some = (rows_of(x, rows), rows_of(observed, rows))
                part = jax.device_get(program(keys[rows], params, *some))
                parts.append([leaf[counted] for leaf in part])
                counted_so_far.add(int(counted.sum()))
        return Found(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))

    return run


def _rank(key: jax.Array, truth: jax.Array, draws: jax.Array) -> jax.Array:
    """The share of S draws below the truth, ties by chance: uniform where truth and draws are of
    one distribution.
    """
    below = (draws < truth).sum()
    ties = (draws == truth).sum()
    return (below + jax.random.uniform(key) * (ties + 1)) / (draws.shape[0] + 1)


def _by_the_mean(
    image: np.ndarray, seen: np.ndarray, mean: np.ndarray, scale: float, is_binary: bool
) -> Found:
    """Each hidden pixel by the mean training image, as a coin where pixels are 0 or 1."""
    count = np.maximum((~seen).reshape(len(seen), -1).sum(1), 1)
    axes = tuple(range(1, image.ndim))
    error = np.where(seen, 0.0, image - mean) * scale
    log_prob = np.full(len(image), np.nan)
    if is_binary:
        p = np.clip(mean, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        each = np.where(image > 0.5, np.log(p), np.log1p(-p))
        log_prob = np.where(seen, 0.0, each).sum(axes) / count
    none = np.full(len(image), np.nan)
    filled = np.where(seen, image, mean)
    rmse = np.sqrt((error**2).sum(axes) / count)
    return Found(filled, filled[:, None], log_prob, rmse, none, none, none)


def _summary(found: dict[str, Found]) -> dict[str, Any]:
    """Means with their standard errors over images, and paired gains over the method before."""
    summary: dict[str, Any] = {}
    before = None
    for name, each in found.items():
        own: dict[str, Any] = {"rmse": mean_stderr(each.rmse)}
        if not np.isnan(each.log_prob).any():
            own["log_prob"] = mean_stderr(each.log_prob)
        if not np.isnan(each.rank).any():
            inside = (each.rank >= TAIL) & (each.rank <= 1 - TAIL)
            own["coverage"] = mean_stderr(inside.astype(float))
            own["accepted"] = float(each.accepted.mean())
        if np.isfinite(each.k_hat).any():
            own["reliable"] = float((each.k_hat < RELIABLE).mean())
        if before is not None:
            own["rmse_below"] = {before: mean_stderr(found[before].rmse - each.rmse)}
            if "log_prob" in own and "log_prob" in summary[before]:
                gain = each.log_prob - found[before].log_prob
                own["log_prob_above"] = {before: mean_stderr(gain)}
        summary[name] = own
        before = name
    return summary


def _draw(
    out: Path, image: np.ndarray, seen: np.ndarray, found: Found, scale: float, title: str
) -> None:
    """imputed.png, of images."""
    if image.ndim < 3:
        return
    rows = {"original": image, "seen": np.where(seen, image, 0.0), "mean": found.mean * scale}
    for number in range(min(SHOWN_DRAWS, found.draws.shape[1])):
        rows[f"sample {number + 1}"] = found.draws[:, number] * scale
    shown = {name: np.clip(each[:SHOWN], 0.0, 1.0) for name, each in rows.items()}
    figures.filled_images(out / "imputed.png", shown, ~seen[:SHOWN], title=title)


def _say(head: str, summary: dict[str, Any], out: Path) -> None:
    print(
        f"{head}: {summary['missing']} % of the pixels of {summary['num_images']:,} "
        f"{summary['split']} images hidden; of a hidden pixel"
    )
    for name in (MARGINAL, *METHODS):
        if name not in summary:
            continue
        own = summary[name]
        parts = [f"RMSE {said(own['rmse']).strip()}"]
        if "log_prob" in own:
            parts.append(f"log p {own['log_prob']['mean']:.4f} ± {own['log_prob']['stderr']:.4f}")
        if "coverage" in own:
            parts.append(
                f"90 % interval of their mean covers {100 * own['coverage']['mean']:.1f} %"
            )
        if name == "metropolis":
            parts.append(f"{100 * own['accepted']:.0f} % accepted")
        if "reliable" in own:
            parts.append(f"k-hat < {RELIABLE} on {100 * own['reliable']:.0f} %")
        for before, gain in own.get("log_prob_above", {}).items():
            parts.append(f"log p over {before} {gain['mean']:+.5f} ± {gain['stderr']:.5f}")
        for before, gain in own.get("rmse_below", {}).items():
            parts.append(f"RMSE below {before} {gain['mean']:+.5f} ± {gain['stderr']:.5f}")
        print(f"  {name:<13} {'; '.join(parts)}")
    print(f"imputed.npz, imputed.json and imputed.png in {out}")
