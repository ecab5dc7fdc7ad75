"""Encodes data by the run in a folder: the latents of each row and, asked for, its anomaly score.

    python -m experiments.encode --workdir=runs/NAME
    python -m experiments.encode --workdir=runs/NAME --split=all --scores --num_samples=5000

Writes latents.npz and latents.csv, posterior means and standard deviations by site, a row for each
example with its id or place, split and label. --scores adds scores.csv: rows ranked by -log p(x),
in nats by importance sampling, with the standard error and k-hat of each.
"""

from pathlib import Path

from absl import flags

from experiments import cli, own_code


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_string("split", "", "train, validation, test or all; that of the config if empty.")
    flags.DEFINE_string("out", "", "The folder to write to; WORKDIR/latents if not given.")
    checkpoint = "latest (the newest good one), best (see config.train.keep_best) or a step."
    flags.DEFINE_string("checkpoint", "latest", checkpoint)
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    flags.DEFINE_boolean("scores", False, "Write scores.csv too, which takes longer.")
    counts = (
        ("num_samples", 1_000, 1, "K, importance samples of each row's score."),
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
    from experiments.run.contents import open_part
    from experiments.run.record import read_run

    config = read_run(workdir, args.allow_code)
    given = {"data.data_dir": args.data_dir, "eval.batch_size": args.batch_size}
    settings.change(config, {field: value for field, value in given.items() if value})
    # the devices of this machine, not those of the run
    settings.change(config, {"mesh.data": -1, "mesh.model": 1})
    settings.validate(config)
    out = open_part(Path(args.out) if args.out else workdir / "latents", "latents")
    cli.set_up_jax()
    cli.find_devices()
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
