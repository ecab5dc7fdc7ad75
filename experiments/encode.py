"""Encodes data by the run in a folder: the latents of each row and, asked for, its anomaly score.

    python -m experiments.encode --workdir=runs/NAME
    python -m experiments.encode --workdir=runs/NAME --split=all --scores --num_samples=5000

Writes latents.npz and latents.csv, posterior means and standard deviations by site, a row for each
example with its id or place, split and label. --scores adds scores.csv: rows ranked by -log p(x),
in nats by importance sampling, with the standard error and k-hat of each.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(
        split=("", "train, validation, test or all; that of the config if empty."),
        part="latents",
        numbers=(
            Whole("num_samples", 1_000, 1, "K, importance samples of each row's score."),
            Whole("chunk", 100, 1, "Importance samples at a time, at most; bounds the memory."),
            Whole("batch_size", 0, 0, "Examples at a time; that of the config if not given."),
        ),
    )
    flags.DEFINE_boolean("scores", False, "Write scores.csv too, which takes longer.")


def main() -> int:
    """The command."""
    args = flags.FLAGS
    (config, workdir, out) = of_run.open_run({"eval.batch_size": args.batch_size}, part="latents")
    from experiments.evals import encoding

    encoding.encode(
        config,
        workdir,
        out,
        split=args.split,
        checkpoint=args.checkpoint,
        seed=args.seed,
        num_samples=args.num_samples if args.scores else 0,
        most=args.chunk,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
