"""Trains and evaluates a row of docs/papers.md through the commands, and reads what they wrote."""

import ast
import hashlib
import importlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import report
from benchmarks.commands import run_command
from benchmarks.papers_row import NATS, Row
from experiments.run import record

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "vi_jax"
# what every row depends on, beside the files of its model and its objective
FILES = {"negative_elbo": "elbo", "negative_bound": "bound"}  # where objectives have other names
COMMON = ("vi_jax/training/step.py", "vi_jax/training/state.py")


class Place(NamedTuple):
    """Where the runs are, and where their data are."""

    folder: Path
    data_dir: str  # of the row's data set; "" for where the command looks by itself

    def run(self, name: str, seed: int) -> Path:
        """The run folder of a row and a seed."""
        return self.folder / f"{name}-{seed}"

    def cost(self, name: str, seed: int) -> Path:
        """The file of the processor time of it, beside the run."""
        return self.folder / f"{name}-{seed}.cost.json"


def config_flags(row: Row, seed: int, data_dir: str) -> list[str]:
    """The flags of experiments.train."""
    (name, variant) = row.config.split(":")
    flags = [f"--config=configs/{name}.py:{variant}", f"--config.{row.seed_field}={seed}"]
    flags += [f"--config.{field}" for field in row.fields]
    return flags + ([f"--config.data.data_dir={data_dir}"] if data_dir else [])


def train(name: str, row: Row, seed: int, place: Place) -> None:
    """Trains a row, or goes on with it; its processor time is added to what it took before.

    A run of other code or of another config is set aside, under a name with its hash.

    Raises:
      RuntimeError: the command failed.
      ValueError: the row's checkpoint would be chosen on test data.
    """
    run = place.run(row.run_of or name, seed)
    cost = place.cost(row.run_of or name, seed)
    sources = fingerprint(row)
    before = {"train_cpu_s": 0.0, "sources": sources}
    if cost.exists():
        before = json.loads(cost.read_text())
    if before["sources"] != sources:
        report.say(f"{run.name} is of other code or of another config, and is set aside")
        run.rename(run.with_name(f"{run.name}.{before['sources']}"))
        before = {"train_cpu_s": 0.0, "sources": sources}
    report.write_json(str(cost), before)
    flags = config_flags(row, seed, place.data_dir)
    spent = run_command("train", *flags, f"--workdir={run}")
    report.write_json(str(cost), {**before, "train_cpu_s": before["train_cpu_s"] + spent})
    require_honest(name, json.loads((run / "config.json").read_text()))


def require_honest(name: str, config: dict[str, Any]) -> None:
    """Refuses a run whose checkpoint was chosen on the data that it is measured on.

    Raises:
      ValueError: it keeps the checkpoint that is best on the test split.
    """
    if config["train"]["keep_best"] and config["eval"]["split"] == "test":
        raise ValueError(
            f"{name} keeps the checkpoint that is best on the test split, so that its number would "
            "be chosen on test data; set eval.split=validation, or keep_best=False."
        )


def evaluate(name: str, row: Row, seed: int, place: Place) -> dict[str, Any]:
    """evaluation-test.json of the run, computed if it is not there as the row asks for it.

    Raises:
      RuntimeError: the command failed.
    """
    run = place.run(row.run_of or name, seed)
    path = run / "evaluation-test.json"
    asked = {
        "bracket": ("bracket", row.num_bracket),
        "refit": ("refit", row.num_refit),
        "weights": ("predictive", row.num_weights),
        "train": ("train_gap", row.num_train),
        "reciprocal": ("reciprocal", row.num_reciprocal),
    }
    if path.exists():
        found = json.loads(path.read_text())
        has_sides = all(name in found for name, num in asked.values() if num)
        if has_sides and found.get("num_importance_samples") == row.num_samples:
            return found
    run_command(
        "evaluate",
        f"--workdir={run}",
        "--split=test",
        f"--num_samples={row.num_samples}",
        f"--checkpoint={row.checkpoint}",
        *(f"--{flag}={num}" for flag, (_, num) in asked.items()),
    )
    return json.loads(path.read_text())


def impute(row: Row, run: Path) -> dict[str, Any]:
    """imputed.json of the row's share of hidden pixels, with `gain_in_stderrs`: the lesser of
    Metropolis over pseudo-Gibbs and pseudo-Gibbs over the marginal mean; computed if it is not
    there, or RuntimeError where the command fails.
    """
    out = run / f"imputed-{row.missing}"
    if not (out / "imputed.json").exists():
        run_command(
            "impute",
            f"--workdir={run}",
            "--split=test",
            "--method=all",
            f"--missing={row.missing}",
            f"--out={out}",
        )
    found = json.loads((out / "imputed.json").read_text())
    gains = (
        found["metropolis"]["log_prob_above"]["pseudo_gibbs"],
        found["pseudo_gibbs"]["log_prob_above"]["marginal"],
    )
    return {**found, "gain_in_stderrs": min(gain["mean"] / gain["stderr"] for gain in gains)}


def read(name: str, row: Row, seed: int, place: Place) -> dict[str, Any]:
    """What the page says of one seed of a row."""
    run = place.run(row.run_of or name, seed)
    config = json.loads((run / "config.json").read_text())
    require_honest(name, config)
    found = evaluate(name, row, seed, place)
    environment = json.loads((run / "environment.json").read_text())
    cost = json.loads(place.cost(row.run_of or name, seed).read_text())
    measured = impute(row, run) if row.missing else found
    return {
        "value": value_of(row, measured, run),
        "steps": config["train"]["num_steps"],
        "cpu_minutes": cost["train_cpu_s"] / 60.0,
        "device": report.device_name(),
        "commit": environment.get("commit", ""),
        "binarisation": binarisation(config),
        "num_samples": found.get("num_importance_samples", 0),
        "reliable_share": found.get("reliable_share", math.nan),
        "sources": cost["sources"],
        **{key: found[key] for key in HEALTH if key in found},
        **({"curve": curve_of(run, config)} if row.has_curve else {}),
    }


HEALTH = (
    *("elbo", "log_evidence", "kl", "active_units", "num_latents", "mutual_information"),
    *("marginal_kl", "bracket", "refit", "predictive", "train_gap", "reciprocal"),
)


def curve_of(run: Path, config: dict[str, Any]) -> list[list[float]]:
    """[training samples, ELBO] at each evaluation during the training."""
    name = f"{config['eval']['split']}/elbo"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    size = config["train"]["batch_size"]
    found = (json.loads(line) for line in lines if f'"{name}"' in line)
    return [[each["step"] * size, round(each[name], 3)] for each in found]


def value_of(row: Row, found: dict[str, Any], run: Path) -> dict[str, float]:
    """The measure of a row, as the paper has it: nats of log p(x) and of the ELBO turned round.

    Raises:
      KeyError: the evaluation has no such number.
    """
    if row.measure.startswith("train/"):
        return {"mean": -_last_metric(run, row.measure), "stderr": math.nan}
    value: Any = found
    for part in row.measure.split("."):
        if part not in value:
            raise KeyError(f"what was measured of {run.name} has no {row.measure!r}.")
        value = value[part]
    if not isinstance(value, dict):
        return {"mean": row.unit * float(value), "stderr": math.nan}
    unit = -row.unit if row.measure in NATS else row.unit
    return {"mean": unit * value["mean"], "stderr": row.unit * value["stderr"]}


def _last_metric(run: Path, name: str) -> float:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line)[name] for line in lines if f'"{name}"' in line]
    return float(values[-1])


def binarisation(config: dict[str, Any]) -> str:
    """dynamic or static, or the levels of the pixels; a fixed set of files is static."""
    if config["data"]["name"] == "binarized_mnist":
        return "static, the published files"
    return {"none": "none, levels", "static": "static"}.get(
        config["data"]["binarisation"], config["data"]["binarisation"]
    )


def fingerprint(row: Row) -> str:
    """A hash of the row's config and of the code that a run of it depends on: a row whose hash has
    not changed is not trained again.
    """
    (name, variant) = row.config.split(":")
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    hasher = hashlib.sha256()
    plain = record.to_plain(config)
    fields = {room: plain[room] for room in ("model", "objective", "optim", "train")}
    fields["data"] = [plain["data"][field] for field in ("name", "binarisation", "train", "test")]
    hasher.update(json.dumps([fields, row.fields], sort_keys=True).encode())
    for path in sorted(sources_of(config, row.fields)):
        hasher.update(path.encode())
        hasher.update((ROOT / path).read_bytes())
    return hasher.hexdigest()[:16]


def sources_of(config: ConfigDict, fields: Sequence[str] = ()) -> set[str]:
    """Files of the model, of the objective with its bound and estimator, and of all in their rooms
    that these import, as paths within the repository.
    """
    objective = config.objective
    pairs = [each.split("=", 1) for each in fields]
    names = [objective.name, *(name for field, name in pairs if field == "objective")]
    named = (
        ("models", config.model.name),
        *(("losses", file) for name in names for file in (name, FILES.get(name, ""))),
        ("bounds", objective.get("bound", "")),
        ("estimators", objective.get("estimator", "")),
    )
    starts = [LIBRARY / room / f"{name}.py" for room, name in named if isinstance(name, str)]
    waiting = [path for path in starts if path.exists()]
    found: set[str] = set(COMMON)
    while waiting:
        path = waiting.pop()
        name = os.path.relpath(path, ROOT)
        if name not in found:
            found.add(name)
            waiting += _imported(path)
    return found


def _imported(path: Path) -> list[Path]:
    """Files of the rooms of models and losses that a file imports from."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and module.startswith(
            ("vi_jax.models", "vi_jax.losses")
        ):
            base = ROOT / module.replace(".", "/")
            tried = [base, *(base / alias.name for alias in node.names)]
            found += [each.with_suffix(".py") for each in tried]
            found += [file for each in tried[1:] for file in each.glob("*.py")]
    return [each for each in found if each.exists()]
