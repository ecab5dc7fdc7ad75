"""Samples, reconstructions and interpolations of a trained run, as PNG and as numbers; of tables
and sequences as CSV too.
"""

from pathlib import Path
from typing import Any

import jax

from experiments import cli
from experiments.evals import images, sequences, tables
from experiments.evals.base import Measures
from experiments.run import estimate, heartbeat, session
from vi_jax import files


def sample(
    config: Any, workdir: Path, out: Path, *, num: int, seed: int, checkpoint: str = "latest"
) -> None:
    """Draws, and writes the pictures and samples.npz, of tables and sequences samples.csv too."""
    dataset = session.load_data(config)
    estimate.require_samples(config, dataset, num)
    built = session.build_all(config, dataset)
    params, step = session.trained_params(config, built.model, workdir, checkpoint)
    if built.model.densities is None:
        raise cli.UserError(f"{workdir} is of a model without densities; it has no pictures.")
    key_samples, key_measures = jax.random.split(jax.random.key(seed))
    with heartbeat.compiling(f"evaluating the {config.eval.split} split"):
        measures = built.meter.measure(key_measures, params, built.x)
    if dataset.table is None:
        paths = _write_images(out, key_samples, built, params, measures, num)
        written = "samples.npz"
    else:
        write = sequences.write_samples if dataset.num_steps else tables.write_samples
        paths = write(out, key_samples, built, params, measures, num=num)
        written = "samples.csv, samples.npz"
    print(
        f"{config.name}, step {step:,}: {num:,} prior samples; {len(paths)} figures and "
        f"{written} in {out}"
    )


def _write_images(
    out: Path, key: jax.Array, built: session.Built, params: Any, measures: Measures, num: int
) -> list[Path]:
    """Writes samples.npz and the pictures; returns the paths of the pictures."""
    with heartbeat.compiling("computing the samples and what the figures show"):
        decoded = images.decode(key, built.subject, params, built.x, built.labels, num_samples=num)
        paths = images.draw(out, decoded, built.subject, params, built.x, built.labels, measures)
    arrays = {
        "samples": decoded.samples,
        "originals": decoded.originals,
        "reconstructions": decoded.reconstructions,
        "paths": decoded.paths,
        **{f"z/{site}": leaf for site, leaf in decoded.z.items()},
    }
    files.write_npz(out / "samples.npz", arrays, compressed=True)
    return paths
