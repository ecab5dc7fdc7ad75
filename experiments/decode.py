"""Decodes behaviour from the firing rates that the run in a folder infers, and exports the rates.

    python -m experiments.decode --workdir=runs/NAME --target=velocity
    python -m experiments.decode --workdir=runs/NAME --target=velocity --lags=4
    python -m experiments.decode --workdir=runs/NAME --nlb=mc_maze

--target is an array [trials, T, M] beside the counts of `spikes:FILE` (or `latents` and `rates` of
simulated data). Ridge regression fitted to the training trials, its penalty chosen by
cross-validation of these, and scored on the test trials, beside the same from the counts
themselves: decoded.npz and decoded.json. --nlb writes rates.h5 as nlb_tools reads it, held-out
neurons predicted from the others.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(
        part="decoded",
        numbers=(
            Whole("lags", 0, 0, "Bins before and after that the decoder is given, too."),
            Whole("batch_size", 0, 0, "Examples at a time; that of the config if not given."),
        ),
    )
    flags.DEFINE_string("target", "", "The array that is decoded; none if empty.")
    flags.DEFINE_string("nlb", "", "The data set's name in rates.h5; no file if empty.")


def main() -> int:
    """The command."""
    args = flags.FLAGS
    if not args.target and not args.nlb:
        raise cli.UserError("--target is missing, or --nlb; name what to decode or to write.")
    fields = {"eval.batch_size": args.batch_size}
    (config, workdir, out) = of_run.open_run(fields, part="decoded")
    from experiments.evals import behaviour

    behaviour.decode(
        config,
        workdir,
        out,
        target=args.target,
        lags=args.lags,
        nlb=args.nlb,
        checkpoint=args.checkpoint,
        seed=args.seed,
    )
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
