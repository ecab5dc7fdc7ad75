"""Evaluates the run in a folder: ELBO, log p(x) by importance sampling, KL per dimension, active
units, mutual information.

    python -m experiments.evaluate --workdir=runs/NAME
    python -m experiments.evaluate --workdir=runs/NAME --num_samples=50000 --split=validation

Every example of the split counts once; numbers are means and standard errors over examples, in
nats. Prints the table and writes evaluation-SPLIT.json beside the checkpoints.
"""

from pathlib import Path

from absl import flags

from experiments import cli, own_code


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
    from experiments.evals import report

    report.evaluate(
        config,
        workdir,
        num_samples=args.num_samples,
        most=args.chunk,
        seed=args.seed,
        checkpoint=args.checkpoint,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
