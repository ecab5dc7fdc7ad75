"""What a run ends with: the closing evaluation, the figures, summary.json and the table."""

import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import cli, figures
from experiments.evals import evidence, images, sequences, tables, units
from experiments.evals.base import Measures, Row, said
from experiments.run import devices, heartbeat, processes, session
from experiments.run.metrics import METRICS, read_rows
from experiments.run.session import Built
from vi_jax import files
from vi_jax.shard import ALONE, Layout

SUMMARY = "summary.json"


def finish(built: Built, workdir: Path, params: Any, measures: Measures) -> dict[str, Any]:
    """Evaluates, draws and prints what a run ends with."""
    config = built.config
    summary = summarise(built, workdir, params, measures)
    files.make_folder(workdir / "figures")
    with heartbeat.phase("computing what the figures show"):
        paths = draw_all(
            workdir / "figures", built.keys.pictures, built, params, measures, num_samples=64
        )
        rows = read_rows(workdir / METRICS)
        if rows:
            path = workdir / "figures" / "learning_curves.png"
            title = f"{config.name}: learning curves"
            paths.append(figures.learning_curves(path, rows, title=title))
    summary["seconds"] = time.perf_counter() - cli.STARTED
    files.write_json(workdir / SUMMARY, summary)
    print(table(built, config.name, summary))
    print(
        f"  {summary['seconds']:.0f} s in all, {len(paths)} figures; run folder "
        f"{os.path.relpath(workdir)}"
    )
    return summary


def summarise(built: Built, workdir: Path, params: Any, measures: Measures) -> dict[str, Any]:
    """The measures of a run with log p(x) by importance sampling, written to summary.json."""
    config = built.config
    key = session.key_at(built.keys.evaluate, 0)
    is_alone = jax.process_count() == 1
    layout = devices.make_layout(config, cuts_batches=False) if is_alone else ALONE
    summary = {
        "split": config.eval.split,
        **measures.summary,
        **log_evidence(
            key, built, params, num_samples=config.eval.num_importance_samples, layout=layout
        ),
        "seconds": time.perf_counter() - cli.STARTED,
    }
    files.write_json(workdir / SUMMARY, summary)
    return summary


def log_evidence(
    key: jax.Array,
    built: Built,
    params: Any,
    *,
    num_samples: int,
    layout: Layout,
    most: int = evidence.MAX_CHUNK,
) -> dict[str, Any]:
    """The summary of log p(x) by importance samples; empty, with a note, where the model has no
    densities.
    """
    if built.model.densities is None:
        processes.say("note: no log p(x) by importance sampling: the model has no densities.")
        return {}
    make = evidence.make_log_evidence(
        built.model,
        num_samples=num_samples,
        batch_size=built.config.eval.batch_size,
        most=most,
        layout=layout,
    )
    with heartbeat.compiling("computing log p(x)"):
        found = make(key, params, built.x)
    nats_per_bit = None
    if built.units.support == "levels":
        nats_per_bit = float(np.prod(built.x_shape) * np.log(2.0))
    summary = evidence.summarise(found, num_samples, nats_per_bit)
    table = built.dataset.table
    return summary if table is None else {**summary, **units.summarise(found.log_p, table, built.x)}


def draw_all(
    folder: Path,
    key: jax.Array,
    built: Built,
    params: Any,
    measures: Measures,
    *,
    num_samples: int,
) -> list[Path]:
    """Every picture but the learning curves; none, with a note, of a model without densities."""
    subject = built.subject
    if subject.model.densities is None:
        processes.say("note: no pictures: the model has no densities.")
        return []
    if built.dataset.num_steps:
        steps = sequences.decode(key, built, params, num_samples=num_samples)
        return sequences.draw(folder, steps, built, params, measures)
    if built.dataset.table is not None:
        rows = tables.decode(key, built, params, num_samples=tables.FIGURE_SAMPLES)
        return tables.draw(folder, rows, built, params, measures)
    decoded = images.decode(key, subject, params, built.x, built.labels, num_samples=num_samples)
    return images.draw(folder, decoded, subject, params, built.x, built.labels, measures)


def table(built: Built, name: str, summary: dict[str, Any]) -> str:
    """The closing table, nats, mean and standard error over examples."""
    rows = [Row("ELBO", said(summary["elbo"]))]
    rows += evidence.rows(summary)
    rows += units.rows(summary)
    rows += built.meter.rows(summary)
    split = f"{summary['num_examples']:,} {summary['split']} examples"
    lines = [f"{name}: nats per example, mean ± standard error over {split}"]
    lines += [line(row) for row in rows]
    return "\n".join(lines)


def line(row: Row) -> str:
    """A row as it is printed."""
    return f"  {row.title:<34}{row.value}{row.note}".rstrip()
