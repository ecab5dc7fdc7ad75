"""Approximates the posterior of a NumPyro model, says whether to trust it, and leaves draws and
figures.

    python -m experiments.posterior --config=configs/posterior/eight_schools.py
    python -m experiments.posterior --config=configs/posterior/breast_cancer.py \\
        --config.method=pathfinder
    python -m experiments.posterior --config=configs/posterior/file.py:my_models.py:my_model \\
        --config.data=FILE.npz    # a model of your own
    python -m experiments.posterior --config=configs/posterior/posteriordb.py:arK-arK \\
        --config.data_dir=CLONE
    python -m experiments.posterior --list=method    # what config.method can be

--config.data names an .npz, whose arrays the model is called with by their names: np.savez(FILE,
x=x, y=y) for my_model(x, y). The run folder holds config.json, environment.json, result.json (the
verdict and every number, the details too), moments.json, history.json, draws.npz (weighted draws of
every site, with their log-weights), result/ (for vi.load_result) and figures/. --show --workdir=DIR
prints the verdict and the moments of a fit again, and runs nothing.
"""

from pathlib import Path

from absl import flags

from experiments import cli, command_line, listing, rooms
from experiments.posteriors.config import validate


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    command_line.define_config_flag()
    command_line.define_folder_flags()
    listing.define_flag()
    flags.DEFINE_boolean("show", False, "Print what the fit in --workdir found, and fit nothing.")
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if listing.is_asked(rooms.LISTED_OF_POSTERIORS):
        return 0
    if flags.FLAGS.show:
        workdir = Path(cli.require("workdir"))
        cli.set_up_jax()
        from experiments.posteriors.fit import show

        show(workdir)
        return 0
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/posterior/eight_schools.py, see --help "
            "for examples."
        )
    config = flags.FLAGS.config
    rooms.require_command(config, "posterior")
    validate(config)
    cli.set_up_jax()
    cli.find_devices()
    from experiments.posteriors.fit import approximate
    from experiments.run.folder import default_folder, open_folder
    from experiments.run.stopping import Stop

    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else default_folder(config)
    with Stop("a fit is not kept in parts").listening():
        open_folder(workdir, config, overwrite=flags.FLAGS.overwrite)
        approximate(config, workdir)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags, ("posterior",))
