"""Samples from the run in a folder: prior samples, reconstructions and interpolations between
examples, as PNG and as numbers.

    python -m experiments.sample --workdir=runs/NAME
    python -m experiments.sample --workdir=runs/NAME --num=256 --seed=1 --out=pictures

Writes samples.png, reconstructions.png, interpolation.png (and the latent plane) with samples.npz,
which holds `samples`, `originals`, `reconstructions` and `paths`, images as grey in [0, 1], E[x |
z]; and `z/SITE`, the latents of the samples. Of a table: samples.csv in the data's own columns and
units with samples.npz, and the pictures that a run of a table ends with.
"""

from pathlib import Path

from absl import flags

from experiments import cli, own_code


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_string("out", "", "The folder to write to; WORKDIR/samples if not given.")
    flags.DEFINE_string(
        "checkpoint",
        "latest",
        "latest (the newest good one), best (see config.train.keep_best) or a step.",
    )
    flags.DEFINE_string("data_dir", "", "Where the data are, if not where the run found them.")
    flags.DEFINE_integer("num", 64, "Prior samples.", lower_bound=1, upper_bound=cli.MAX_COUNT)
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

    config = read_run(workdir, flags.FLAGS.allow_code)
    if args.data_dir:
        settings.change(config, {"data.data_dir": args.data_dir})
    settings.validate(config)
    out = open_part(Path(args.out) if args.out else workdir / "samples", "samples")
    cli.set_up_jax()
    cli.find_devices()
    from experiments.evals import samples

    samples.sample(config, workdir, out, num=args.num, seed=args.seed, checkpoint=args.checkpoint)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
