"""Fills in the missing entries of a table by the run in a folder, with draws and 90 % intervals.

    python -m experiments.impute --workdir=runs/NAME
    python -m experiments.impute --workdir=runs/NAME --split=test --num_samples=10000

Writes imputed.csv, the table as it came with its missing entries filled in; intervals.csv, a row
for each of them; draws.npz, their joint draws; and imputed.png. By importance resampling: see
docs/outputs.md.
"""

from pathlib import Path

from absl import flags

from experiments import cli, own_code

MIN_SAMPLES = 25  # importance samples whose weights can be judged


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_string("split", "all", "train, validation, test or all.")
    flags.DEFINE_string("out", "", "The folder to write to; WORKDIR/imputed if not given.")
    checkpoint = "latest (the newest good one), best (see config.train.keep_best) or a step."
    flags.DEFINE_string("checkpoint", "latest", checkpoint)
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    counts = (
        ("num_samples", 1_000, MIN_SAMPLES, "K, importance samples of each row."),
        ("num_draws", 20, 1, "Draws of each missing entry, equally likely."),
        ("batch_size", 0, 0, "Rows at a time; by their size if not given."),
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
    from experiments.run.contents import open_part
    from experiments.run.record import read_run

    config = read_run(workdir, args.allow_code)
    if args.data_dir:
        settings.change(config, {"data.data_dir": args.data_dir})
    settings.validate(config)
    out = open_part(Path(args.out) if args.out else workdir / "imputed", "imputed")
    cli.set_up_jax()
    cli.find_devices()
    from experiments.evals import imputing

    imputing.impute(
        config,
        workdir,
        out,
        split=args.split,
        checkpoint=args.checkpoint,
        seed=args.seed,
        num_samples=args.num_samples,
        num_draws=args.num_draws,
        batch_size=args.batch_size,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
