"""Evaluates the run in a folder: ELBO, log p(x) by importance sampling, KL per dimension, active
units, mutual information.

    python -m experiments.evaluate --workdir=runs/NAME
    python -m experiments.evaluate --workdir=runs/NAME --num_samples=50000 --split=validation

Every example of the split counts once; numbers are means and standard errors over examples, in
nats. Prints the table and writes evaluation-SPLIT.json beside the checkpoints.
"""

import time
from pathlib import Path

from absl import flags

from experiments import cli, heartbeat


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
    flags.DEFINE_integer("num_samples", 5_000, "K, importance samples per example.", lower_bound=1)
    flags.DEFINE_integer(
        "chunk", 100, "Importance samples at a time, at most; bounds the memory.", lower_bound=1
    )
    flags.DEFINE_integer(
        "batch_size", 0, "Examples at a time; that of the config if not given.", lower_bound=0
    )
    flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)
    cli.define_common_flags()


def main() -> int:
    """The command."""
    workdir = Path(cli.require("workdir"))
    args = flags.FLAGS
    from experiments import rundir, settings

    config = rundir.read_config(workdir)
    with config.unlocked():
        config.data.data_dir = args.data_dir or config.data.data_dir
        config.eval.split = args.split or config.eval.split
        config.eval.batch_size = args.batch_size or config.eval.batch_size
        config.mesh.data = -1  # the devices of this machine, not those of the run
        config.mesh.model = 1
    settings.validate(config)
    cli.set_up_jax()
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
    import numpy as np

    from experiments import files, measure, session

    layout = session.make_layout(config, cuts_batches=False)
    dataset = session.load_data(config)
    model = session.make_model(config, dataset)
    params, step = session.trained_params(config, model, workdir, checkpoint)
    x, _ = session.evaluation_set(config, dataset, config.eval.split)
    key_measures, key_evidence = jax.random.split(jax.random.key(seed))
    with heartbeat.compiling(f"evaluating the {config.eval.split} split"):
        measures = measure.make_measure(model, config)(key_measures, params, x)

    chunk = measure.chunk_for(num_samples, most)
    log_evidence = measure.make_log_evidence(
        model,
        num_samples=num_samples,
        chunk=chunk,
        batch_size=config.eval.batch_size,
        layout=layout,
    )
    with heartbeat.compiling("computing log p(x)"):
        log_p = log_evidence(key_evidence, params, x)

    summary = {
        "split": config.eval.split,
        "step": step,
        "seed": seed,
        **measures.summary,
        "log_evidence": measure.mean_stderr(log_p),
        "num_importance_samples": num_samples,
        **measure.extras(params, config, int(np.prod(x.shape[1:])), float(log_p.mean())),
        "kl_per_dimension": np.atleast_1d(measures.kl).tolist(),
        "active": measures.active.tolist(),
        "seconds": time.perf_counter() - cli.STARTED,
    }
    print(measure.table(f"{config.name}, step {step:,}", summary, config))
    if measures.kl.ndim:
        order = np.argsort(-measures.kl)
        kls = "  ".join(
            f"{d}: {measures.kl[d]:.3f}{'' if measures.active[d] else ' (inactive)'}" for d in order
        )
        print(f"  KL per latent dimension    {kls}")
    path = workdir / f"evaluation-{config.eval.split}.json"
    try:
        files.write_json(path, summary)
    except OSError as error:  # as of a folder that may only be read; the table above is the same
        raise cli.UserError(f"{path} cannot be written ({error.strerror}).") from None
    print(f"  {summary['seconds']:.0f} s; written to {path}")
    return summary


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__ or "")
