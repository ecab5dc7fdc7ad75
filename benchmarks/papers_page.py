"""docs/papers.md: the table of the papers and ours, and the health of each model."""

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import papers_run
from benchmarks.papers_row import FIRST_SAMPLES, Row
from benchmarks.papers_rows import ROWS
from benchmarks.report import markdown_table, write_block

PAGE = Path(__file__).parents[1] / "docs" / "papers.md"
HEAD = (
    "row",
    "published",
    "ours",
    "to reach: pass, beat",
    "seeds",
    "steps",
    "CPU minutes",
    "binarisation",
    "K",
    "k-hat < 0.7",
    "commit",
)
HEALTH_HEAD = (
    "row",
    "-ELBO",
    "-log p(x), K samples",
    "by annealing, of some",
    "the same by samples",
    "upper less lower, simulated",
    "amortisation gap",
    "KL",
    "active units",
    "I(x; z)",
    "KL of the aggregate",
    "predictive, samples of weights",
    "log p(x), training less test",
    "appendix D less samples",
)
Measured = dict[str, dict[str, dict[str, Any]]]  # {row: {seed: what `papers_run.read` gave}}


def write(measured: Measured) -> None:
    """Replaces the tables of docs/papers.md.

    Raises:
      ValueError: the marks around them are not there, once each.
    """
    write_block("papers", describe(measured), PAGE)


def describe(measured: Measured) -> str:
    """Both tables, Markdown; a row that was not run says so."""
    rows = [_row(name, row, measured) for name, row in ROWS.items()]
    health = [_health(name, measured[name]) for name in ROWS if measured.get(name)]
    parts = [markdown_table(HEAD, rows)]
    if health:
        parts.append(markdown_table(HEALTH_HEAD, health))
    commands = [_command(name, row) for name, row in ROWS.items() if row.on_gpu]
    parts.append(markdown_table(("row for a GPU", "command"), commands))
    parts.append(_note(measured))
    return "\n\n".join(parts)


def value(name: str, measured: Measured) -> tuple[float, float] | None:
    """The mean over seeds, or their median, and its standard error: over examples, or over seeds
    where that is more; None where the row, or the one that it is compared with, was not run.
    """
    row = ROWS[name]
    if not measured.get(name):
        return None
    (mean, stderr) = _of_seeds(name, measured)
    if not row.against:
        return mean, stderr
    if not measured.get(row.against):
        return None
    other = _of_seeds(row.against, measured)
    return other[0] - mean, math.hypot(other[1], stderr)


def _of_seeds(name: str, measured: Measured) -> tuple[float, float]:
    """What a row measured itself, whatever it is compared with."""
    return _mean(measured[name], by=np.median if ROWS[name].is_median else np.mean)


def _mean(seeds: dict[str, dict[str, Any]], *, by: Any) -> tuple[float, float]:
    means = np.array([found["value"]["mean"] for found in seeds.values()])
    stderrs = np.array([found["value"]["stderr"] for found in seeds.values()])
    has_stderr = np.isfinite(stderrs)
    examples = float(stderrs[has_stderr].mean()) if has_stderr.any() else math.nan
    if len(means) < 2:
        return float(means[0]), examples
    over_seeds = float(means.std(ddof=1) / len(means) ** 0.5)
    return float(by(means)), float(np.fmax(over_seeds, examples))


def points(name: str, measured: Measured) -> tuple[int, int] | None:
    """At how many evaluations during the training, from FIRST_SAMPLES on, a row was above the one
    that it is compared with, and how many there were, of the first seed; None where it has no
    curve.
    """
    row = ROWS[name]
    if not (row.has_curve and row.against):
        return None
    curves = [next(iter(measured[each].values()))["curve"] for each in (name, row.against)]
    other = dict(map(tuple, curves[1]))
    above = [
        elbo > other[samples]
        for samples, elbo in curves[0]
        if samples >= FIRST_SAMPLES and samples in other
    ]
    return sum(above), len(above)


def verdict(row: Row, mean: float, stderr: float = 0.0, at: tuple[int, int] | None = None) -> str:
    """beats, passes, or short; nothing where the row is only there to be compared with.

    Args:
      row: whose goals these are.
      mean, stderr: its value.
      at: of `points`; a row with a curve beats where it is above at all of them.
    """
    if math.isnan(row.passes) and math.isnan(row.beats):
        return ""
    sign = -1.0 if row.is_higher_better else 1.0
    if row.is_within:
        mean = abs(mean)
    if row.sigmas and mean <= row.sigmas * stderr:
        return "short"
    is_above = at is None or at[0] == at[1]
    if sign * mean <= sign * row.beats and is_above:
        return "beats"
    if sign * mean <= sign * row.passes:
        return "passes"
    return "short"


def _row(name: str, row: Row, measured: Measured) -> list[str]:
    title = f"`{name}`: {row.what}"
    published = f"{row.published} ({row.confidence})"
    goals = ", ".join("-" if math.isnan(goal) else f"{goal:g}" for goal in (row.passes, row.beats))
    found = value(name, measured)
    if found is None:
        return [title, published, "not run", goals, *[""] * (len(HEAD) - 4)]
    (mean, stderr) = found
    error = "" if math.isnan(stderr) else f" ± {stderr:.2f}"
    at = points(name, measured)
    judged = verdict(row, mean, stderr, at)
    said = f", {judged}" if judged else ""
    if at is not None:
        said += f"; above at {at[0]} of {at[1]} points"
    seeds = measured[name]
    one = next(iter(seeds.values()))
    minutes = np.mean([each["cpu_minutes"] for each in seeds.values()])
    share = np.mean([each["reliable_share"] for each in seeds.values()])
    return [
        title,
        published,
        f"**{mean:.2f}**{error}{said}",
        goals,
        str(len(seeds)),
        f"{one['steps']:,}",
        "" if math.isnan(minutes) else f"{minutes:.0f}",
        one["binarisation"],
        f"{one['num_samples']:,}",
        "" if math.isnan(share) else f"{100 * share:.0f} %",
        f"`{one['commit']}`",
    ]


def _health(name: str, seeds: dict[str, dict[str, Any]]) -> list[str]:
    one = next(iter(seeds.values()))
    sides = one.get("bracket", {})
    lost = one.get("refit", {})
    return [
        f"`{name}`",
        _nats(one.get("elbo"), -1.0),
        _nats(one.get("log_evidence"), -1.0),
        _nats(sides.get("ais"), -1.0),
        _nats(sides.get("adaptive", sides.get("importance_sampling")), -1.0),
        _nats(sides.get("simulated_gap")),
        _nats(lost.get("gap")),
        _nats(one.get("kl")),
        f"{one['active_units']} of {one['num_latents']}" if "active_units" in one else "-",
        _nats(one.get("mutual_information")),
        _nats(one.get("marginal_kl")),
        _nats(one.get("predictive"), -1.0),
        _nats(one.get("train_gap")),
        _nats(one.get("reciprocal", {}).get("error")),
    ]


def _command(name: str, row: Row) -> list[str]:
    """Trains a row by itself; quotes around what a shell would read."""
    flags = papers_run.config_flags(row, row.seeds[0], "DIR")
    quoted = " ".join(shlex.quote(flag) for flag in flags)
    return [f"`{name}`", f"`python -m experiments.train {quoted}`"]


def _nats(found: dict[str, float] | None, sign: float = 1.0) -> str:
    return "-" if found is None else f"{sign * found['mean']:.2f} ± {found['stderr']:.2f}"


def _note(measured: Measured) -> str:
    devices = {each["device"] for seeds in measured.values() for each in seeds.values()}
    return (
        "Test images, 10,000 of MNIST binarised once where the binarisation is dynamic; nats an "
        "image unless a row says otherwise; the second table is of the first seed. "
        "Figure 2 passes where AEVB is above wake-sleep by 2 standard errors at the end, and beats "
        f"where it is so at every evaluation from {FIRST_SAMPLES:,} training samples on. Devices: "
        f"{', '.join(sorted(devices)) or 'none yet'}."
    )
