"""Evaluates the run in a folder: ELBO, log p(x) by importance sampling, KL per dimension, active
units, mutual information.

    python -m experiments.evaluate --workdir=runs/NAME
    python -m experiments.evaluate --workdir=runs/NAME --num_samples=50000 --split=validation

Every example of the split counts once; numbers are means and standard errors over examples, in
nats. Prints the table and writes evaluation-SPLIT.json beside the checkpoints.
"""

import time
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, own_code
from experiments.run import heartbeat


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_string("split", "", "test or validation; that of the config if not given.")
    flags.DEFINE_string(
        "checkpoint",
        "latest",
        "latest (the newest good one), best (see config.train.keep_best) or a step.",
    )
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    counts = (
        ("num_samples", 5_000, 1, "K, importance samples per example."),
        ("chunk", 100, 1, "Importance samples at a time, at most; bounds the memory."),
        ("batch_size", 0, 0, "Examples at a time; that of the config if not given."),
    )
    for name, default, least, text in counts:
        flags.DEFINE_integer(name, default, text, lower_bound=least, upper_bound=cli.MAX_COUNT)
    flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, upper_bound=cli.MAX_SEED)
    own_code.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    workdir = Path(cli.require("workdir"))
    args = flags.FLAGS
    from experiments import settings
    from experiments.run.record import read_run

    config = read_run(workdir, flags.FLAGS.allow_code)
    given = {
        "data.data_dir": args.data_dir,
        "eval.split": args.split,
        "eval.batch_size": args.batch_size,
    }
    settings.change(config, {field: value for field, value in given.items() if value})
    # the devices of this machine, not those of the run
    settings.change(config, {"mesh.data": -1, "mesh.model": 1})
    settings.validate(config)
    cli.set_up_jax()
    cli.find_devices()
    evaluate(
        config,
        workdir,
        num_samples=args.num_samples,
        most=args.chunk,
        seed=args.seed,
        checkpoint=args.checkpoint,
    )
    return 0


def evaluate(
    config, workdir: Path, *, num_samples: int, most: int, seed: int, checkpoint: str = "latest"
) -> dict:
    """Measures a run and writes evaluation-SPLIT.json."""
    import jax

    from experiments import files
    from experiments.evals import closing
    from experiments.run import estimate, session

    layout = session.make_layout(config, cuts_batches=False)
    dataset = session.load_data(config)
    estimate.require_evaluation(
        config, dataset, num_samples=num_samples, chunk=most, key="--num_samples"
    )
    built = session.build_all(config, dataset)
    params, step = session.trained_params(config, built.model, workdir, checkpoint)
    key_measures, key_evidence = jax.random.split(jax.random.key(seed))
    with heartbeat.compiling(f"evaluating the {config.eval.split} split"):
        measures = built.meter.measure(key_measures, params, built.x)
    evidence = closing.log_evidence(
        key_evidence, built, params, num_samples=num_samples, layout=layout, most=most
    )
    summary = {
        "split": config.eval.split,
        "step": step,
        "seed": seed,
        **measures.summary,
        **evidence,
        **by_dimension(measures),
        "seconds": time.perf_counter() - cli.STARTED,
    }
    print(closing.table(built, f"{config.name}, step {step:,}", summary))
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


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
