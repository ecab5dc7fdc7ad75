"""Samples from the run in a folder: prior samples, reconstructions and interpolations between
examples, as PNG and as numbers.

    python -m experiments.sample --workdir=runs/NAME
    python -m experiments.sample --workdir=runs/NAME --num=256 --seed=1 --out=pictures

Writes samples.png, reconstructions.png, interpolation.png (and the latent plane) with samples.npz,
which holds `samples`, `originals`, `reconstructions` and `paths`, images as grey in [0, 1], E[x |
z]; and `z/SITE`, the latents of the samples. Of a table: samples.csv in the data's own columns and
units with samples.npz, and the pictures that a run of a table ends with.
"""

from absl import flags

from experiments import cli, of_run
from experiments.of_run import Whole


def define_flags() -> None:
    """The flags of the command."""
    of_run.define_flags(part="samples", numbers=(Whole("num", 64, 1, "Prior samples."),))


def main() -> int:
    """The command."""
    args = flags.FLAGS
    (config, workdir, out) = of_run.open_run(part="samples")
    from experiments.evals import samples

    samples.sample(config, workdir, out, num=args.num, seed=args.seed, checkpoint=args.checkpoint)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
