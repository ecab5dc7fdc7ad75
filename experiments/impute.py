"""Fills in the missing entries of a table by the run in a folder, with draws and 90 % intervals.

    python -m experiments.impute --workdir=runs/NAME
    python -m experiments.impute --workdir=runs/NAME --split=test --num_samples=10000

Writes imputed.csv, the table as it came with its missing entries filled in; intervals.csv, a row
for each of them; draws.npz, their joint draws; and imputed.png. By importance resampling: see
docs/outputs.md.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole

MIN_SAMPLES = 25  # importance samples whose weights can be judged


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(
        split=("all", "train, validation, test or all."),
        part="imputed",
        numbers=(
            Whole("num_samples", 1_000, MIN_SAMPLES, "K, importance samples of each row."),
            Whole("num_draws", 20, 1, "Draws of each missing entry, equally likely."),
            Whole("batch_size", 0, 0, "Rows at a time; by their size if not given."),
        ),
    )


def main() -> int:
    """The command."""
    args = flags.FLAGS
    (config, workdir, out) = of_run.open_run(part="imputed")
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
