"""Trains a model, evaluates it and leaves a folder worth looking at; run again, it goes on from the
last checkpoint.

    python -m experiments.train --config=configs/vae.py    # 8x8 digits, half a minute
    python -m experiments.train --config=configs/vae.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/vae.py --config.model.num_latents=2 \\
        --config.seed=1 --workdir=runs/plane
    python -m experiments.train --list=model    # what config.model can be; --list alone: all kinds
    python -m experiments.train --config=configs/replay.py:runs/plane/config.json    # the same run

Any field of the config can be set: --config.optim.learning_rate.peak=1e-3 (docs/configs.md). The
run folder holds config.json, environment.json, metrics.jsonl, timing.jsonl, tensorboard/,
checkpoints/, figures/ and summary.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli, command_line, config_file, listing, own_code, rooms, settings, sweep
from experiments.run import processes

if TYPE_CHECKING:
    from experiments.data import Ahead, Dataset
    from experiments.run.tracker import Trackers


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    command_line.define_config_flag()
    command_line.define_folder_flags()
    listing.define_flag()
    flags.DEFINE_string("tracker", "", "FILE.py:FUNCTION that returns a tracker (docs/runs.md).")
    processes.define_flags()
    own_code.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if listing.is_asked(rooms.LISTED, settings.FACTS):
        return 0
    if flags.FLAGS.config is None:
        how = "try --config=configs/vae.py, see --help for examples."
        raise cli.UserError(f"--config is missing; {how}")
    rooms.require_command(flags.FLAGS.config, "train")
    config = config_file.as_config(own_code.released(flags.FLAGS.config, flags.FLAGS.allow_code))
    settings.validate(config)
    from experiments import data
    from experiments.run.folder import default_folder, refuse_foreign
    from experiments.run.tracker import Trackers

    trackers = Trackers(flags.FLAGS.tracker)
    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else default_folder(config)
    refuse_foreign(workdir)
    with data.load_ahead(config.data) as ahead:  # while JAX is imported
        if ahead is not None:
            ahead.settle()
        _train(config, workdir, ahead, trackers)
    return 0


def _train(config: Any, workdir: Path, ahead: Ahead[Dataset] | None, trackers: Trackers) -> None:
    """Trains what a config says in its folder; `ahead` is its data set, where it is being read."""
    cli.set_up_jax()
    processes.join(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)
    cli.find_devices()
    from experiments.run import lock
    from experiments.run.folder import open_folder
    from experiments.run.stopping import Stop

    overwrite = flags.FLAGS.overwrite
    locked = processes.first_holds(lambda: lock.locked(workdir))
    with (stop := Stop()).listening(), locked, trackers:
        measured = []
        if settings.leaves_estimator_open(config):
            from experiments.run import estimators

            measured = estimators.settle(config, workdir, overwrite=overwrite, ahead=ahead)
        resumed = processes.from_first(lambda: open_folder(workdir, config, overwrite=overwrite))
        if measured:
            estimators.write(measured, config, workdir)
        from experiments.run import replicas, single

        if sweep.is_several(config):
            replicas.train(config, workdir, stop=stop, ahead=ahead, trackers=trackers)
        else:
            of_one = dict(resumed=resumed, stop=stop, ahead=ahead, trackers=trackers)
            single.train(config, workdir, **of_one)


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags, ("", "neural"))
