"""Pictures and samples of a model of sequences: over their steps, and as the rows of a table."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import figures
from experiments.data.columns import CLASSES, Table
from experiments.evals import images, plane, spikes, tables
from experiments.evals.base import Measures
from experiments.evals.csv_file import write_csv
from experiments.evals.data_columns import as_columns, context_columns
from experiments.evals.decoding import rows_of
from experiments.run import effort, heartbeat
from experiments.run.session import Built
from vi_jax import files
from vi_jax.types import num_examples

MAX_SEQUENCES = 100  # of the data that figures show
MAX_ENTRIES = 60_000  # of them, where sequences are large, whose bands take NUM_DRAWS each
MIN_SEQUENCES = 5
FIGURE_SAMPLES = 200  # at least, where figures compare samples with data
NUM_DRAWS = 200  # of z and x, of each sequence, for its band
COVERAGE = 0.9  # of it
BATCH_SIZE = 16  # sequences whose draws are made at a time


class Decoded(NamedTuple):
    """What figures and samples.csv show, values in the data's units, classes as codes; nan where
    missing and in the padding.
    """

    data: np.ndarray  # [n, T, D]
    lengths: np.ndarray  # of them, [n]
    ids: np.ndarray  # [n]
    rebuilt: np.ndarray  # E[x | z] at the posterior mean, of classes the most probable, [n, T, D]
    low: np.ndarray  # of the bands, [n, T, D]
    high: np.ndarray
    samples: np.ndarray  # of x, for z from the prior, [M, T, D]
    sample_lengths: np.ndarray  # those of the data's sequences, [M]
    contexts: Any  # the sequences of the data whose exposure and covariates the samples have
    z: dict[str, np.ndarray]  # the latents of the samples, by site


def decode(key: jax.Array, built: Built, params: Any, *, num_samples: int) -> Decoded:
    """Reconstructs sequences of the evaluated split, with bands, and samples as many as asked for
    (FIGURE_SAMPLES at least).
    """
    table = _table_of(built)
    part = getattr(built.dataset, built.config.eval.split)
    key_shown, key_bands, key_samples = jax.random.split(key, 3)
    num = num_examples(built.x)
    by_size = max(MAX_ENTRIES // int(np.prod(built.x_shape)), MIN_SEQUENCES)
    shown = np.arange(min(num, MAX_SEQUENCES, by_size))
    chosen = np.arange(max(num_samples, FIGURE_SAMPLES)) % num
    x = rows_of(built.x, shown)
    contexts = rows_of(built.x, chosen)
    mean, codes = tables.reconstruct(key_shown, built.model, params, x)
    low, high = bands(key_bands, built.model, params, x)
    values, z = tables.sample_rows(key_samples, built.model, params, contexts)
    is_class = np.isin(table.kinds, CLASSES)
    data = np.where(np.asarray(x["observed"]), table.to_data(np.asarray(x["values"])), np.nan)
    lengths = part.lengths[shown]
    ids = np.arange(num) if part.ids is None else part.ids
    return Decoded(
        data,
        lengths,
        ids[shown],
        without_padding(np.where(is_class, codes, table.to_data(mean)), lengths),
        without_padding(table.to_data(low), lengths),
        without_padding(table.to_data(high), lengths),
        without_padding(table.to_data(values), part.lengths[chosen]),
        part.lengths[chosen],
        jax.tree.map(np.asarray, contexts),
        z,
    )


def _table_of(built: Built) -> Table:
    assert built.dataset.table is not None
    return built.dataset.table


def without_padding(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Values [n, T, D] with nan in the padding."""
    is_there = np.arange(values.shape[1]) < lengths[:, None]
    return np.where(is_there[..., None], values, np.nan)


def bands(key: jax.Array, model: vi.Model, params: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of x ~ p(x | z) for z ~ q(z | x), which leave COVERAGE between them, in the
    model's units, each [n, T, D].
    """
    densities: Any = model.densities
    tail = 0.5 * (1.0 - COVERAGE)

    def one(key_and_x: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
        (key, x) = key_and_x
        key_z, key_x = jax.random.split(key)
        z = densities.guide(params, x).sample(key_z, (NUM_DRAWS,))
        keys = jax.random.split(key_x, NUM_DRAWS)
        draws = jax.vmap(lambda key, z: densities.decode(params, x, z).sample(key)["values"])
        ends = jnp.quantile(draws(keys, z), jnp.array([tail, 1.0 - tail]), axis=0)
        return ends[0], ends[1]

    keys = jax.random.split(key, num_examples(x))
    run = effort.jit_evaluation(lambda keys, x: jax.lax.map(one, (keys, x), batch_size=BATCH_SIZE))
    return jax.tree.map(np.asarray, run(keys, x))


def coverage(decoded: Decoded, table: Table) -> float:
    """Share of the observed entries that lie within their bands; nan where all are classes."""
    is_number = ~np.isin(table.kinds, CLASSES)
    inside = (decoded.data >= decoded.low) & (decoded.data <= decoded.high)
    known = np.isfinite(decoded.data) & is_number
    return float(inside[known].mean()) if known.any() else float("nan")


# --- figures


def draw(
    folder: Path, decoded: Decoded, built: Built, params: Any, measures: Measures
) -> list[Path]:
    """Draws sequences with their reconstructions, samples and lengths; their steps as a table is
    drawn; the KL of each latent dimension and the latent plane.
    """
    table = _table_of(built)
    files.make_folder(folder)
    name = tables.named(built.config)
    split = built.config.eval.split
    levels = [column.levels if column.kind in CLASSES else () for column in table.columns]
    covered = coverage(decoded, table)
    said = "" if np.isnan(covered) else f", which holds {100 * covered:.0f} % of the data"
    note = f"5 to 95 % of x ~ p(x | z), z ~ q(z | x){said}"
    paths = [
        figures.reconstructed_sequences(
            folder / "sequences.png",
            _shown(decoded),
            table.names,
            levels,
            title=f"{name}: {split} sequences and their reconstructions",
            note=note,
        ),
        figures.sampled_sequences(
            folder / "samples.png",
            _cut(decoded.data, decoded.lengths),
            _cut(decoded.samples, decoded.sample_lengths),
            table.names,
            levels,
            title=f"{name}: sequences of the {split} data, and samples",
        ),
        _draw_lengths(folder / "lengths.png", built, name),
    ]
    paths += tables.draw_columns(folder, as_rows(decoded), table, built.config)
    paths += images.draw_kl(folder, built.subject, measures)
    paths += spikes.draw(folder, measures, built.subject.truth, f"{name}: {split}")
    return paths + plane.draw(folder, built.subject, params, built.x, built.labels, measures)


def _cut(values: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Each sequence [T_n, D] without its padding."""
    return [each[:length] for each, length in zip(values, lengths, strict=True)]


def _shown(decoded: Decoded) -> list[figures.Shown]:
    """Sequences for a page; those of which nothing is known would tell nothing."""
    found = []
    for i in np.flatnonzero(np.isfinite(decoded.data).any((1, 2))):
        parts = (decoded.data, decoded.rebuilt, decoded.low, decoded.high)
        pieces = [part[i, : decoded.lengths[i]] for part in parts]
        panels = [
            figures.Panel(*(piece[:, d] for piece in pieces)) for d in range(pieces[0].shape[1])
        ]
        found.append(figures.Shown(f"sequence {decoded.ids[i]}", panels))
    return found


def as_rows(decoded: Decoded) -> tables.Decoded:
    """The steps of the sequences as the rows of a table, without the padding."""
    steps = np.arange(decoded.data.shape[1]) < decoded.lengths[:, None]
    drawn = np.arange(decoded.samples.shape[1]) < decoded.sample_lengths[:, None]
    return tables.Decoded(
        decoded.data[steps],
        decoded.rebuilt[steps],
        decoded.samples[drawn],
        decoded.contexts,
        decoded.z,
    )


def _draw_lengths(path: Path, built: Built, name: str) -> Path:
    dataset = built.dataset
    lengths = {
        role: part.lengths
        for role in ("train", "validation", "test")
        if (part := getattr(dataset, role)) is not None
    }
    reached = np.arange(dataset.num_steps) < lengths["train"][:, None]
    observed = dataset.train.x["observed"].mean(-1)
    shares = np.stack([observed.mean(0), reached.mean(0)])
    title = f"{name}: lengths, and what is observed"
    return figures.length_histograms(path, lengths, shares, title=title)


# --- samples


def write_samples(
    out: Path, key: jax.Array, built: Built, params: Any, measures: Measures, *, num: int
) -> list[Path]:
    """Writes samples.csv, a row for each step in the data's own columns and units, samples.npz and
    the figures.

    Returns:
      The paths of the figures.
    """
    table = _table_of(built)
    with heartbeat.compiling("computing the samples and what the figures show"):
        decoded = decode(key, built, params, num_samples=num)
        paths = draw(out, decoded, built, params, measures)
    lengths = decoded.sample_lengths[:num]
    steps = np.arange(decoded.samples.shape[1]) < lengths[:, None]
    sequence, step = np.nonzero(steps)
    given = {
        key: leaf[:num][steps]
        for key, leaf in decoded.contexts.items()
        if key in ("exposure", "covariates")
    }
    columns = {
        "sequence": sequence,
        "step": step,
        **context_columns(table, given),
        **as_columns(table, decoded.samples[:num][steps]),
    }
    write_csv(out / "samples.csv", columns)
    arrays = {
        "samples": decoded.samples[:num],
        "lengths": lengths,
        "names": np.array(table.names),
        **{f"z/{site}": leaf[:num] for site, leaf in decoded.z.items()},
    }
    files.write_npz(out / "samples.npz", arrays, compressed=True)
    return paths
