"""What a run ends with: the closing evaluation, the figures, summary.json and the table."""

import os
import time
from collections.abc import Callable
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
from experiments.terminal import WIDTH
from vi_jax import files
from vi_jax.shard import ALONE, Layout

SUMMARY = "summary.json"
NOTES_AT = 40  # columns, where a note below its row begins


def finish(built: Built, workdir: Path, params: Any, measures: Measures) -> dict[str, Any]:
    """Evaluates, draws and prints what a run ends with."""
    config = built.config
    summary = make_summarise(built)(built, workdir, params, measures)
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


def make_summarise(
    built: Built,
) -> Callable[[Built, Path, Any, Measures], dict[str, Any]]:
    """A function of a run, its folder, its parameters and its measures that writes summary.json:
    the measures, with log p(x) by importance sampling. Its program is of the model and the data of
    `built`, and compiled once for all runs that have them.
    """
    config = built.config
    is_alone = jax.process_count() == 1
    layout = devices.make_layout(config, cuts_batches=False) if is_alone else ALONE
    num_samples = config.eval.num_importance_samples
    log_evidence = make_log_evidence(built, num_samples=num_samples, layout=layout)

    def summarise(own: Built, workdir: Path, params: Any, measures: Measures) -> dict[str, Any]:
        key = session.key_at(own.keys.evaluate, 0)
        summary = {
            "split": config.eval.split,
            **measures.summary,
            **log_evidence(key, params),
            "seconds": time.perf_counter() - cli.STARTED,
        }
        files.write_json(workdir / SUMMARY, summary)
        return summary

    return summarise


def make_log_evidence(
    built: Built, *, num_samples: int, layout: Layout, most: int = evidence.MAX_CHUNK
) -> Callable[[jax.Array, Any], dict[str, Any]]:
    """(key, params) -> the summary of log p(x) by importance samples; empty, with a note, where the
    model has no densities.
    """
    if built.model.densities is None:
        processes.say("note: no log p(x) by importance sampling: the model has no densities.")
        return lambda key, params: {}
    estimate = evidence.make_log_evidence(
        built.model,
        num_samples=num_samples,
        batch_size=built.config.eval.batch_size,
        most=most,
        layout=layout,
    )
    nats_per_bit = None
    if built.units.support == "levels":
        nats_per_bit = float(np.prod(built.x_shape) * np.log(2.0))
    table = built.dataset.table

    def log_evidence(key: jax.Array, params: Any) -> dict[str, Any]:
        with heartbeat.compiling("computing log p(x)"):
            found = estimate(key, params, built.x)
        summary = evidence.summarise(found, num_samples, nats_per_bit)
        if table is None:
            return summary
        return {**summary, **units.summarise(found.log_p, table, built.x)}

    return log_evidence


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
    """A row as it is printed; a note that does not fit into a terminal's width goes below it."""
    whole = f"  {row.title:<34}{row.value}{row.note}".rstrip()
    if len(whole) <= WIDTH or not row.note:
        return whole
    return f"  {row.title:<34}{row.value}".rstrip() + f"\n{'':>{NOTES_AT}}{row.note.strip()}"
