"""What a run ends with: the closing evaluation, the figures, summary.json and the table."""

import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import cli, figures, files, heartbeat, measure, pictures, session
from experiments.metrics import METRICS, read_rows


def finish(
    config: Any,
    workdir: Path,
    model: Any,
    params: Any,
    num_levels: int,
    x: Any,
    labels: Any,
    measures: Any,
) -> dict[str, Any]:
    """Evaluates, draws and prints what a run ends with."""
    summary = summarise(config, workdir, model, params, x, measures)
    keys = session.keys(config)
    with heartbeat.phase("computing what the figures show"):
        paths = pictures.draw_all(
            workdir / "figures",
            key=keys.pictures,
            model=model,
            params=params,
            config=config,
            num_levels=num_levels,
            x=x,
            labels=labels,
            measures=measures,
        )
    rows = read_rows(workdir / METRICS)
    if rows:
        figures.learning_curves(
            workdir / "figures" / "learning_curves.png",
            rows,
            title=f"{config.name}: learning curves",
        )
    summary["seconds"] = time.perf_counter() - cli.STARTED
    files.write_json(workdir / "summary.json", summary)
    print(measure.table(config.name, summary, config))
    print(
        f"  {summary['seconds']:.0f} s in all, {len(paths) + 1} figures; run folder "
        f"{os.path.relpath(workdir)}"
    )
    return summary


def summarise(
    config: Any, workdir: Path, model: Any, params: Any, x: Any, measures: Any
) -> dict[str, Any]:
    """The measures of a run with log p(x) by importance sampling, written to summary.json."""
    k = config.eval.num_importance_samples
    keys = session.keys(config)
    layout = session.make_layout(config, cuts_batches=False) if jax.process_count() == 1 else None
    log_evidence = measure.make_log_evidence(
        model,
        num_samples=k,
        chunk=measure.chunk_for(k),
        batch_size=config.eval.batch_size,
        layout=layout,
    )
    with heartbeat.compiling("computing log p(x)"):
        values = log_evidence(session.key_at(keys.evaluate, 0), params, x)
    summary = {
        "split": config.eval.split,
        **measures.summary,
        "log_evidence": measure.mean_stderr(values),
        "num_importance_samples": k,
        **measure.extras(params, config, int(np.prod(x.shape[1:])), float(values.mean())),
        "seconds": time.perf_counter() - cli.STARTED,
    }
    files.write_json(workdir / "summary.json", summary)
    return summary
