"""Behaviour decoded from the rates of a run, and its rates as the Neural Latents Benchmark has
them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli import UserError
from experiments.data.base import require
from experiments.evals import spikes
from experiments.evals.base import Subject, batches
from experiments.run import heartbeat, session
from vi_jax import files
from vi_jax.diagnostics import decoding
from vi_jax.types import num_examples


class Rates(NamedTuple):
    """Expected counts of the trials of a split, [trials, T, N]."""

    shown: np.ndarray  # each neuron given all
    hidden: np.ndarray  # held-out neurons, given the others, [trials, T, H]


def decode(
    config: Any,
    workdir: Path,
    out: Path,
    *,
    target: str,
    lags: int = 0,
    nlb: str = "",
    checkpoint: str = "latest",
    seed: int = 0,
) -> dict[str, Any]:
    """Writes decoded.npz and decoded.json where a target is named, and rates.h5 where `nlb` is.

    Raises:
      UserError: the run is not of spike counts, or the data have no such target.
    """
    dataset = session.load_data(config)
    built = session.build_all(config, dataset)
    subject = built.subject
    reason = spikes.lacks(subject)
    if reason:
        raise UserError(f"{workdir} cannot be decoded: {reason}; it has to be a run on spikes.")
    splits = {name: session.evaluated_split(config, dataset, name) for name in ("train", "test")}
    for name, part in splits.items():
        if target and target not in (part.truth or {}):
            known = ", ".join(sorted(part.truth or {})) or "none"
            raise UserError(
                f"the {name} trials have no {target!r} to decode; beside the counts there are: "
                f"{known}."
            )
    params, step = session.trained_params(config, built.model, workdir, checkpoint)
    hidden = spikes.held_out(len(subject.kinds))
    found = {}
    with heartbeat.compiling("inferring rates"):
        for number, name in enumerate(splits):
            x, _ = session.evaluation_set(config, dataset, name)
            key = jax.random.fold_in(jax.random.key(seed), number)
            found[name] = rates_of(key, subject, params, x, hidden)
    files.make_folder(out)
    if nlb:
        write_nlb(out / "rates.h5", nlb, found, hidden)
        print(f"{config.name}, step {step:,}: rates.h5 of {nlb} in {out}")
    if not target:
        return {}
    summary = _decoded(out, target, lags, splits, found)
    print(said(f"{config.name}, step {step:,}", target, summary))
    return summary


def rates_of(key: jax.Array, subject: Subject, params: Any, x: Any, hidden: np.ndarray) -> Rates:
    """Predicted counts of all trials of a split."""
    model = subject.model

    @jax.jit
    @jax.vmap
    def each(key: jax.Array, x: Any) -> tuple[jax.Array, jax.Array]:
        (key_all, key_hidden) = jax.random.split(key)
        shown = {**x, "observed": x["observed"] & ~hidden}
        rates = spikes.predicted(key_all, model, params, x)
        return rates, spikes.predicted(key_hidden, model, params, shown)[:, hidden]

    num = num_examples(x)
    keys = jax.random.split(key, num)
    parts = []
    for rows, counted in batches(num, subject.config.eval.batch_size):
        some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
        part = jax.device_get(each(keys[rows], some))
        parts.append([leaf[counted] for leaf in part])
    return Rates(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


def _decoded(
    out: Path, target: str, lags: int, splits: dict[str, Any], found: dict[str, Rates]
) -> dict[str, Any]:
    """Fits the decoders and writes what they give."""
    around = range(-lags, lags + 1)

    def of(features: dict[str, np.ndarray]) -> decoding.Decoded:
        parts = [
            decoding.Trials(features[name], np.asarray(splits[name].truth[target]))
            for name in ("train", "test")
        ]
        return decoding.decode(*parts, lags=around)

    with heartbeat.phase("decoding"):
        from_rates = of({name: rates.shown for name, rates in found.items()})
        from_counts = of({name: np.asarray(part.x["values"]) for name, part in splits.items()})
    summary = {
        "target": target,
        "lags": lags,
        "rates": _numbers(from_rates),
        "counts": _numbers(from_counts),
    }
    arrays = {"predicted": from_rates.predicted, target: splits["test"].truth[target]}
    files.write_npz(out / "decoded.npz", arrays)
    files.write_json(out / "decoded.json", summary)
    return summary


def _numbers(found: decoding.Decoded) -> dict[str, Any]:
    return {
        "r2": found.mean_r2,
        "r2_of_each": found.r2.tolist(),
        "stderr_of_each": found.stderr.tolist(),
        "penalty": found.penalty,
    }


def said(title: str, target: str, summary: dict[str, Any]) -> str:
    """The table of what was decoded."""
    lines = [f"{title}: R² of {target} on test trials, ridge regression chosen on training trials"]
    for name in ("rates", "counts"):
        found = summary[name]
        pairs = zip(found["r2_of_each"], found["stderr_of_each"], strict=True)
        each = ", ".join(f"{value:.3f} ± {error:.3f}" for value, error in pairs)
        lines.append(f"  from {name:<30}{found['r2']:>10.3f}   {each}")
    return "\n".join(lines)


def write_nlb(path: Path, name: str, found: dict[str, Rates], hidden: np.ndarray) -> None:
    """Rates in the arrays that nlb_tools' `evaluate` reads (Pei et al. 2021), such as
    NAME/train_rates_heldin: expected counts of a bin, [trials, T, neurons].
    """
    h5py = require("h5py", "h5py", "rates.h5")
    with files.writing(path) as file, h5py.File(file, "w") as root:
        group = root.create_group(name)
        for split, kind in (("train", "train"), ("test", "eval")):
            rates = found[split]
            group[f"{kind}_rates_heldin"] = rates.shown[..., ~hidden]
            group[f"{kind}_rates_heldout"] = rates.hidden
