"""Fills in the missing entries of a table by the run in a folder, with draws and 90 % intervals; or
hides pixels of images and fills them in.

    python -m experiments.impute --workdir=runs/NAME
    python -m experiments.impute --workdir=runs/NAME --split=test --num_samples=10000
    python -m experiments.impute --workdir=runs/IMAGES --method=all --missing=80

Of a table: imputed.csv, the table as it came with its missing entries filled in; intervals.csv, a
row for each of them; draws.npz, their joint draws; and imputed.png. By importance resampling;
intervals are calibrated by observed entries of validation rows that are hidden (intervals.json). Of
images: imputed.npz, imputed.json and imputed.png, by Markov chains or by importance resampling. See
docs/outputs.md.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole

MIN_SAMPLES = 25  # importance samples whose weights can be judged
METHODS = ("metropolis", "pseudo_gibbs", "importance", "all")


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(
        split=("", "train, validation or test; or all, which a table has if not given."),
        part="imputed",
        numbers=(
            Whole("num_samples", 1_000, MIN_SAMPLES, "Samples of each row or image, kept states."),
            Whole("num_draws", 20, 1, "Draws of each missing entry, equally likely."),
            Whole("num_hidden", 1_000, 0, "Of a table: entries hidden to calibrate; 0: none."),
            Whole("batch_size", 0, 0, "Rows of a table at a time; by their size if not given."),
            Whole("missing", 50, 1, "Of images: per cent of the pixels that are hidden."),
            Whole("num_images", 500, 2, "Of images: how many, the first of the split."),
            Whole("burn_in", 200, 0, "Of images: states of a chain that are left out."),
        ),
    )
    flags.DEFINE_enum("method", "metropolis", METHODS, "Of images: how pixels are filled in.")


def main() -> int:
    """The command."""
    args = flags.FLAGS
    (config, workdir, out) = of_run.open_run(part="imputed")
    from experiments.evals import hidden_pixels, imputing
    from experiments.run import session

    dataset = session.load_data(config)
    shared = (config, dataset, workdir, out)
    if dataset.table is not None:
        imputing.impute(
            *shared,
            split=args.split or "all",
            checkpoint=args.checkpoint,
            seed=args.seed,
            num_samples=args.num_samples,
            num_draws=args.num_draws,
            num_hidden=args.num_hidden,
            batch_size=args.batch_size,
        )
        return 0
    options = hidden_pixels.Options(args.num_samples, args.burn_in, args.num_draws)
    hidden_pixels.fill_images(
        *shared,
        method=args.method,
        missing=args.missing,
        split=args.split or config.eval.split,
        num=args.num_images,
        checkpoint=args.checkpoint,
        seed=args.seed,
        options=options,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
