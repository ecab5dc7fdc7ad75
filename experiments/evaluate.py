"""Evaluates the run in a folder: ELBO, log p(x) by importance sampling, KL per dimension, active
units, mutual information.

    python -m experiments.evaluate --workdir=runs/NAME
    python -m experiments.evaluate --workdir=runs/NAME --num_samples=50000 --split=validation

With --bracket=200, log p(x) of that many examples by annealed importance sampling, and of as many
simulated ones between two bounds; with --refit=50, what the encoder loses against a guide fitted to
each example alone; with --reciprocal=200, the estimator of Kingma & Welling (2013), appendix D;
with --weights=50, p(x) averaged over samples of the weights, of a run by full_vb; with
--train=1000, how far log p(x) of training examples is above. Every example of the split counts
once; numbers are means and standard errors over examples, in nats. Prints the table and writes
evaluation-SPLIT.json beside the checkpoints.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(
        split=("", "test or validation; that of the config if not given."),
        numbers=(
            Whole("num_samples", 5_000, 1, "K, importance samples per example."),
            Whole("chunk", 100, 1, "Importance samples at a time, at most; bounds the memory."),
            Whole("bracket", 0, 0, "Examples whose log p(x) is bracketed by annealing; 0 is off."),
            Whole("refit", 0, 0, "Examples to which the guide is refitted; 0 is off."),
            Whole("weights", 0, 0, "Samples of the weights, of a run by full_vb; 0 is off."),
            Whole("train", 0, 0, "Training examples whose log p(x) is set beside; 0 is off."),
            Whole("reciprocal", 0, 0, "Examples of appendix D's estimator; 0 is off."),
            Whole("batch_size", 0, 0, "Examples at a time; that of the config if not given."),
        ),
    )


def main() -> int:
    """The command."""
    args = flags.FLAGS
    fields = {"eval.split": args.split, "eval.batch_size": args.batch_size}
    (config, workdir, _) = of_run.open_run(fields)
    from experiments.evals import report

    report.evaluate(
        config,
        workdir,
        num_samples=args.num_samples,
        most=args.chunk,
        seed=args.seed,
        checkpoint=args.checkpoint,
        num_bracket=args.bracket,
        num_refit=args.refit,
        num_weights=args.weights,
        num_train=args.train,
        num_reciprocal=args.reciprocal,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
