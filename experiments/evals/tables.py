"""Pictures and samples of a model of tables: columns, correlations, counts, the latent plane."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import figures, titles
from experiments.data.columns import CLASSES, COUNTS, LOG, NOMINAL, Table
from experiments.evals import images, plane
from experiments.evals.base import Measures
from experiments.evals.csv_file import write_csv
from experiments.evals.data_columns import as_columns, context_columns
from experiments.evals.decoding import guess, rows_of
from experiments.evals.latents import by_site
from experiments.run import effort, heartbeat
from experiments.run.session import Built
from vi_jax import files
from vi_jax.types import num_examples

MAX_ROWS = 2_000  # of the data that figures show
FIGURE_SAMPLES = 2_000  # at least, where figures compare samples with data
BATCH_SIZE = 256  # rows decoded at a time


class Decoded(NamedTuple):
    """What figures and samples.csv show, values in the data's units, classes as codes."""

    data: np.ndarray  # [n, D], nan where missing
    rebuilt: np.ndarray  # E[x | z] at the posterior mean, of classes the most probable, [n, D]
    samples: np.ndarray  # of x, for z from the prior, [M, D]
    contexts: Any  # the rows of the data whose exposure and covariates the samples have
    z: dict[str, np.ndarray]  # the latents of the samples, by site


def decode(key: jax.Array, built: Built, params: Any, *, num_samples: int) -> Decoded:
    """Reconstructs the first rows of the evaluated split, and samples as many rows as asked for."""
    table = built.dataset.table
    assert table is not None
    key_shown, key_samples = jax.random.split(key)
    num = num_examples(built.x)
    shown = rows_of(built.x, np.arange(min(num, MAX_ROWS)))
    contexts = rows_of(built.x, np.arange(num_samples) % num)
    mean, codes = reconstruct(key_shown, built.model, params, shown)
    values, z = sample_rows(key_samples, built.model, params, contexts)
    is_class = np.isin(table.kinds, CLASSES)
    observed = np.asarray(shown["observed"])
    data = table.to_data(np.asarray(shown["values"]))
    return Decoded(
        np.where(observed, data, np.nan),
        np.where(is_class, codes, table.to_data(mean)),
        table.to_data(values),
        jax.tree.map(np.asarray, contexts),
        z,
    )


def reconstruct(
    key: jax.Array, model: vi.Model, params: Any, x: Any
) -> tuple[np.ndarray, np.ndarray]:
    """E[x | z] at the guide's mean of z, in the model's units, and the most probable code of each
    column, both [n, D], or [n, T, D] of sequences.
    """
    densities: Any = model.densities

    def one(key_and_x: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
        (key, x) = key_and_x
        p = densities.decode(params, x, guess(key, densities.guide(params, x)))
        probs = getattr(p, "probs", None)
        codes = jnp.round(p.mean) if probs is None else probs.argmax(-1)
        return p.mean, codes

    keys = jax.random.split(key, num_examples(x))
    run = effort.jit_evaluation(lambda keys, x: jax.lax.map(one, (keys, x), batch_size=BATCH_SIZE))
    return jax.tree.map(np.asarray, run(keys, x))


def sample_rows(
    key: jax.Array, model: vi.Model, params: Any, contexts: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """x ~ p(x | z) for z ~ p(z), in the model's units, [M, D] or [M, T, D], and z by site; one for
    each context.
    """
    densities: Any = model.densities

    def one(key_and_x: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        (key, x) = key_and_x
        key_z, key_x = jax.random.split(key)
        z = densities.prior(params, x).sample(key_z)
        return densities.decode(params, x, z).sample(key_x)["values"], z

    keys = jax.random.split(key, num_examples(contexts))
    run = effort.jit_evaluation(lambda keys, x: jax.lax.map(one, (keys, x), batch_size=BATCH_SIZE))
    values, z = run(keys, contexts)
    return np.asarray(values), {site: np.asarray(leaf) for site, leaf in by_site(z).items()}


# --- figures


def draw(
    folder: Path,
    decoded: Decoded,
    built: Built,
    params: Any,
    measures: Measures,
) -> list[Path]:
    """Draws data against reconstructions, correlations, statistics of counts, the KL of each latent
    dimension and the latent plane, as PNG files.
    """
    table = built.dataset.table
    assert table is not None
    files.make_folder(folder)
    paths = draw_columns(folder, decoded, table, built.config)
    subject = built.subject
    paths += images.draw_kl(folder, subject, measures)
    return paths + plane.draw(folder, subject, params, built.x, built.labels, measures)


def draw_columns(folder: Path, decoded: Decoded, table: Table, config: Any) -> list[Path]:
    """Draws data against reconstructions, correlations and statistics of counts."""
    name = named(config)
    split = config.eval.split
    paths = []
    columns = reconstructed(table, decoded)
    if columns:
        title = f"{name}: {split} data against reconstructions, at the posterior mean"
        path = folder / "columns.png"
        paths.append(figures.reconstructed_columns(path, columns, title=title))
    data, names = comparable(table, decoded.data)
    samples, _ = comparable(table, decoded.samples)
    if len(names) > 1:
        title = f"{name}: correlations of {split} data and of samples"
        path = folder / "correlations.png"
        paths.append(figures.correlation_maps(path, data, samples, names, title=title))
    is_count = np.isin(table.kinds, COUNTS) & np.isfinite(decoded.data).any(0)
    if is_count.any():
        title = f"{name}: counts of {split} data and of samples"
        counts = (decoded.data[:, is_count], decoded.samples[:, is_count])
        paths.append(figures.count_statistics(folder / "counts.png", *counts, title=title))
    return paths


def reconstructed(table: Table, decoded: Decoded) -> list[figures.Reconstructed]:
    """The columns with what is observed of them and its reconstruction."""
    found = []
    for d, column in enumerate(table.columns):
        observed = np.isfinite(decoded.data[:, d])
        if observed.any():
            levels = column.levels if column.kind in CLASSES else ()
            truth = decoded.data[observed, d]
            rebuilt = decoded.rebuilt[observed, d]
            is_count = column.kind in COUNTS
            found.append(figures.Reconstructed(column.name, truth, rebuilt, levels, is_count))
    return found


def comparable(table: Table, data: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The columns that a correlation means something of: log(1 + x) of counts, log x of log-normal
    columns; no classes of more than two levels without an order.
    """
    found = []
    names = []
    for d, column in enumerate(table.columns):
        if column.kind == NOMINAL and len(column.levels) > 2:
            continue
        values = data[:, d]
        name = column.name
        if column.kind in COUNTS:
            values = np.log1p(values)
            name = f"log(1 + {name})"
        elif column.kind == LOG:
            values = np.log(values)
            name = f"log {name}"
        found.append(values)
        names.append(name)
    stacked = np.stack(found, axis=1) if found else np.zeros((len(data), 0))
    return stacked, names


def named(config: Any) -> str:
    """The name of a run, and its data where the name does not say them."""
    name = config.name
    label = titles.label_of(config.data.name)
    return name if label in name else f"{name}, {label}"


# --- samples


def write_samples(
    out: Path, key: jax.Array, built: Built, params: Any, measures: Measures, *, num: int
) -> list[Path]:
    """Writes samples.csv, in the data's own columns and units, samples.npz and the figures.

    Returns:
      The paths of the figures.
    """
    table = built.dataset.table
    assert table is not None
    with heartbeat.compiling("computing the samples and what the figures show"):
        decoded = decode(key, built, params, num_samples=max(num, FIGURE_SAMPLES))
        paths = draw(out, decoded, built, params, measures)
    context = context_columns(table, rows_of(decoded.contexts, np.arange(num)))
    write_csv(out / "samples.csv", {**context, **as_columns(table, decoded.samples[:num])})
    arrays = {
        "samples": decoded.samples[:num],
        "names": np.array(table.names),
        **{f"z/{site}": leaf[:num] for site, leaf in decoded.z.items()},
    }
    files.write_npz(out / "samples.npz", arrays, compressed=True)
    return paths
