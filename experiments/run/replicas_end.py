"""What replicas end with: their summaries, replicas.json, their curves and the table."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import build, cli, sweep
from experiments.evals.base import mean_stderr
from experiments.run import heartbeat, held_out, session
from experiments.run.metrics import METRICS, read_rows
from experiments.run.record import read_json
from experiments.run.replicas_start import STOPPED, Replica
from vi_jax import files

SUMMARY = "replicas.json"
WIDE = 21  # of a column


def finish(
    built: session.Built, workdir: Path, replicas: list[Replica], ends: dict[int, Any]
) -> list[dict[str, Any]]:
    """Evaluates each run, writes their summaries and replicas.json, draws their curves and prints
    the table.
    """
    from experiments import figures
    from experiments.evals import closing

    config = built.config
    measure = held_out.make_measure(built)
    summarise = closing.make_summarise(built)
    rows = []
    for which, each in enumerate(replicas):
        row = {
            "replica": which,
            "seed": each.config.seed,
            "learning_rate": build.peak_rate(each.config),
            **sweep.values(each.config, sweep.of_model(config)),
        }
        if which in ends:
            params, measures = ends[which]
            own = built._replace(config=each.config, keys=session.keys(each.config))
            with heartbeat.phase(f"summarising {each.folder.name} of {len(replicas)} replicas"):
                found = summarise(own, each.folder, params, measures)
                rows.append(row | found | measure(params))
        else:
            rows.append(row | {"stopped": read_json(each.folder / STOPPED)["step"]})
    files.write_json(workdir / SUMMARY, rows)
    curves = {
        _name(row): read_rows(each.folder / METRICS)
        for row, each in zip(rows, replicas, strict=True)
    }
    files.make_folder(workdir / "figures")
    figures.replica_curves(
        workdir / "figures" / "replicas.png",
        curves,
        key=f"{config.eval.split}/elbo",
        title=f"{config.name}: ELBO of the replicas",
    )
    print(table(config, rows))
    print(
        f"  {time.perf_counter() - cli.STARTED:.0f} s in all; {SUMMARY}, figures/replicas.png "
        f"and replica_*/ in {workdir}"
    )
    (best, why) = _best(config, rows, curves)
    print(f"  pictures: python -m experiments.sample --workdir={workdir}/replica_{best}  ({why})")
    return rows


def table(config: Any, rows: list[dict[str, Any]]) -> str:
    """One line for each run, and the mean over seeds with its standard error for each combination
    of what is swept; nats.
    """
    swept = tuple(sweep.of_model(config))
    lines = [
        f"{config.name}: nats per example on the {config.eval.split} split, mean ± standard "
        "error over examples"
    ]
    titles = "".join(f"{field.replace('_', ' '):>{WIDE}}" for field in ("learning_rate", *swept))
    last = f"{'bits of hidden bins':>{WIDE}}" if swept else ""
    lines += [f"  {'replica':<9}{'seed':>5}{titles}  {'ELBO':>20}  {'log p(x)':>20}{last}"]
    lines += [_line(row, swept) for row in rows]
    for numbers in dict.fromkeys(_numbers(row, swept) for row in rows):
        same = [row for row in rows if _numbers(row, swept) == numbers and "elbo" in row]
        if len(same) > 1:
            spread = mean_stderr(np.array([row["elbo"]["mean"] for row in same]))
            said = ", ".join(f"{number:g}" for number in numbers)
            lines.append(
                f"  over {len(same)} seeds at {said}: ELBO {_pair(spread)}, standard error "
                "over seeds"
            )
    return "\n".join(lines)


def _line(row: dict[str, Any], swept: tuple[str, ...]) -> str:
    own = "".join(f"{value:>{WIDE}g}" for value in _numbers(row, swept))
    head = f"  {row['replica']:<9}{row['seed']:>5}{own}  "
    if "stopped" in row:
        return f"{head}not finite at step {row['stopped']:,}"
    evidence = _pair(row["log_evidence"]) if "log_evidence" in row else ""
    bits = f"{row[held_out.BITS]:>{WIDE}.4f}" if held_out.BITS in row else ""
    return f"{head}{_pair(row['elbo']):>20}  {evidence:>20}{bits}"


def _numbers(row: dict[str, Any], swept: tuple[str, ...]) -> tuple[float, ...]:
    """What tells a run from others beside its seed."""
    return tuple(row[field] for field in ("learning_rate", *swept))


def _pair(pair: dict[str, float]) -> str:
    return f"{pair['mean']:.3f} ± {pair['stderr']:.3f}"


def _name(row: dict[str, Any]) -> str:
    fields = [field for field in sweep.OF_MODEL if field in row]
    swept = [f"{field.replace('_', ' ')} {row[field]:g}" for field in fields]
    rate = f"rate {row['learning_rate']:g}"
    return ", ".join([f"{row['replica']}: seed {row['seed']}", rate, *swept])


def _best(
    config: Any, rows: list[dict[str, Any]], curves: dict[str, list[dict[str, Any]]]
) -> tuple[int, str]:
    """The run that is pointed to, and by what: validation examples, or else training examples, and
    never test examples.
    """
    ended = [row for row in rows if "elbo" in row]
    if all(held_out.BITS in row for row in ended):
        best = max(ended, key=lambda row: row[held_out.BITS])
        return best["replica"], "the most bits per spike of held-out bins on validation"
    if config.eval.split == "validation":
        best = max(ended, key=lambda row: row["elbo"]["mean"])
        return best["replica"], "the best ELBO on validation"

    def last(row: dict[str, Any]) -> float:
        values = [each["train/loss"] for each in curves[_name(row)] if "train/loss" in each]
        return values[-1] if values else float("inf")

    return min(ended, key=last)["replica"], "the lowest training loss at the end"
