"""Runs one step of a run again, alone: a step whose loss or gradient was not finite, as
experiments.train kept it.

    python -m experiments.replay --workdir=runs/NAME                the last one that was kept
    python -m experiments.replay --workdir=runs/NAME --step=1234

Needs no data, no checkpoint and none of the code in the folder, only config.json and
nonfinite/step_N.npz. Prints the batch, the parameters, the terms of the loss, and the first
operation that made nan, or else infinity, with its line. The exit code is 0 where the step is not
finite again, 1 where it is finite here.
"""

from pathlib import Path

from absl import flags

from experiments import cli, own_code


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    flags.DEFINE_string("workdir", "", "The folder of a run, as experiments.train printed it.")
    flags.DEFINE_integer("step", -1, "The step; the last that was kept if not given.")
    own_code.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    workdir = Path(cli.require("workdir"))
    from experiments import settings
    from experiments.run.record import read_run

    config = read_run(workdir, flags.FLAGS.allow_code)
    settings.validate(config)
    cli.set_up_jax()
    cli.find_devices()
    from experiments.run import diagnosis

    return diagnosis.replay(config, workdir, flags.FLAGS.step)


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
