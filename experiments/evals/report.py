"""The evaluation of a trained run: the table, and evaluation-SPLIT.json beside its checkpoints."""

import time
from pathlib import Path
from typing import Any

import jax

from experiments import cli
from experiments.evals import closing, sides
from experiments.run import devices, estimate, heartbeat, session
from vi_jax import files

SIDES = 2  # what the key of the bracket is folded with


def evaluate(
    config,
    workdir: Path,
    *,
    num_samples: int,
    most: int,
    seed: int,
    checkpoint: str = "latest",
    num_bracket: int = 0,
    num_refit: int = 0,
    num_weights: int = 0,
    num_train: int = 0,
    num_reciprocal: int = 0,
) -> dict:
    """Measures a run and writes evaluation-SPLIT.json; the last numbers are those of
    `sides.Asked`.
    """
    layout = devices.make_layout(config, cuts_batches=False)
    dataset = session.load_data(config)
    estimate.require_evaluation(
        config, dataset, num_samples=num_samples, chunk=most, key="--num_samples"
    )
    built = session.build_all(config, dataset)
    params, step = session.trained_params(config, built.model, workdir, checkpoint)
    key = jax.random.key(seed)
    key_measures, key_evidence = jax.random.split(key)
    key_sides = jax.random.fold_in(key, SIDES)
    with heartbeat.compiling(f"evaluating the {config.eval.split} split"):
        measures = built.meter.measure(key_measures, params, built.x)
    estimate_log_p = closing.make_log_evidence(
        built, num_samples=num_samples, layout=layout, most=most
    )
    evidence = estimate_log_p(key_evidence, params)
    asked = sides.Asked(num_bracket, num_refit, num_samples, num_weights, num_train, num_reciprocal)
    summary = {
        "split": config.eval.split,
        "step": step,
        "seed": seed,
        **measures.summary,
        **evidence,
        **sides.measure(key_sides, built, params, asked),
        **by_dimension(measures),
        "seconds": time.perf_counter() - cli.STARTED,
    }
    print(closing.table(built, f"{config.name}, step {step:,}", summary))
    for row in sides.rows(summary):
        print(closing.line(row))
    for line in dimension_lines(measures):
        print(line)
    path = workdir / f"evaluation-{config.eval.split}.json"
    try:
        files.write_json(path, summary)
    except OSError as error:  # as of a folder that may only be read; the table above is the same
        raise cli.UserError(f"{path} cannot be written ({error.strerror}).") from None
    print(f"  {summary['seconds']:.0f} s; written to {path}")
    return summary


def by_dimension(measures: Any) -> dict[str, Any]:
    """The KL of each latent dimension and whether it is active, by site; of the only site as they
    stand.
    """
    found = {}
    for name, key in (("kl_per_dimension", "kl_per_dimension"), ("active", "active")):
        sites = {site: leaf.tolist() for site, leaf in measures.arrays.get(key, {}).items()}
        if sites:
            found[name] = next(iter(sites.values())) if len(sites) == 1 else sites
    return found


def dimension_lines(measures: Any) -> list[str]:
    """The KL of each latent dimension, largest first, a line for each site that has them."""
    lines = []
    kls = measures.arrays["kl_per_dimension"]
    for site, kl in kls.items():
        active = measures.arrays.get("active", {}).get(site)
        if kl.ndim != 1 or active is None or active.shape != kl.shape:
            continue
        order = (-kl).argsort()
        shown = [f"{d}: {kl[d]:.3f}{'' if active[d] else ' (inactive)'}" for d in order]
        of_site = "" if len(kls) == 1 else f" of {site}"
        lines.append(f"  KL per latent dimension{of_site}    {'  '.join(shown)}")
    return lines
