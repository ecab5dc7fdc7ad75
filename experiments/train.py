"""Trains a model, evaluates it and leaves a folder worth looking at; run again, it goes on from the
last checkpoint.

    python -m experiments.train --config=configs/vae.py    # 8x8 digits, about a minute
    python -m experiments.train --config=configs/vae.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/vae.py --config.model.num_latents=2 \\
        --config.seed=1 --workdir=runs/plane
    python -m experiments.train --config=configs/replay.py:runs/plane/config.json    # the same run

Any field of the config can be set: --config.optim.learning_rate.peak=1e-3 (docs/configs.md). The
run folder holds config.json, environment.json, metrics.jsonl, timing.jsonl, tensorboard/,
checkpoints/, figures/ and summary.json.
"""

import contextlib
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, command_line, config_file, own_code, settings
from experiments.run import heartbeat, processes


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    command_line.define_config_flag()
    flags.DEFINE_string(
        "workdir", "", "The run folder; runs/NAME-HASH, the hash that of the config, if not given."
    )
    flags.DEFINE_bool("overwrite", False, "Delete the run that is in the folder and start anew.")
    processes.define_flags()
    own_code.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/vae.py, see --help for examples."
        )
    config = config_file.as_config(own_code.released(flags.FLAGS.config, flags.FLAGS.allow_code))
    settings.validate(config)
    cli.set_up_jax()
    processes.join(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)
    cli.find_devices()
    from experiments.run import lock
    from experiments.run.folder import default_folder, open_folder, refuse_foreign
    from experiments.run.stopping import Stop

    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else default_folder(config)
    refuse_foreign(workdir)
    with processes.first_holds(lambda: lock.locked(workdir)), (stop := Stop()).listening():
        resumed = processes.from_first(
            lambda: open_folder(workdir, config, overwrite=flags.FLAGS.overwrite)
        )
        if config.replicas > 1 or config.sweep.learning_rates:
            from experiments import replicas

            replicas.train(config, workdir, stop=stop)
        else:
            train(config, workdir, resumed=resumed, stop=stop)
    return 0


def train(config: Any, workdir: Path, *, resumed: bool, stop: Any = None) -> dict[str, Any]:
    """Runs what is left of a run and returns its summary; `stop` (`stopping.Stop`) ends it early,
    after a save.
    """
    from experiments.run import estimate, session
    from experiments.run.folder import check_data
    from experiments.run.stopping import Stop

    stop = stop or Stop()
    layout = session.make_layout(config)
    dataset = session.load_data(config)
    estimate.require_run(config, dataset)
    built = session.build_all(config, dataset)
    processes.from_first(lambda: check_data(workdir, built.dataset))
    _introduce(built, layout)
    state, recorder = _run(built, workdir, layout, resumed=resumed, stop=stop)
    measures = recorder.final_measures(0, state)
    params = session.whole_params(state, layout)
    if not processes.is_first():
        return measures.summary
    from experiments.evals import closing  # with matplotlib, which the first steps do not wait for

    return closing.finish(built, workdir, params, measures)


def _introduce(built: Any, layout: Any) -> None:
    """What is trained, on what."""
    from experiments.run import session

    config = built.config
    images = built.dataset.train.images
    processes.say(
        f"{config.name}: {len(images):,} training examples {images.shape[1:]} from "
        f"{built.dataset.source}"
    )
    if layout is not None:
        processes.say(session.describe(layout))
    if config.train.keep_best and config.eval.split == "test":
        processes.say(
            "note: the best checkpoint is chosen by the test split: its test ELBO is a maximum "
            "over noise (docs/runs.md)."
        )


def _run(built: Any, workdir: Path, layout: Any, *, resumed: bool, stop: Any) -> tuple[Any, Any]:
    """The state at the end, and the recorder of the run."""
    from experiments import build
    from experiments.run import loop, nonfinite, session
    from experiments.run.checkpoints import Checkpoints
    from experiments.run.metrics import MetricsLog, Progress, Silence
    from experiments.run.parts import Parts
    from experiments.run.recorder import Member, Recorder, num_batches

    config = built.config
    spec = config.train
    run, data = session.make_run(built, layout)
    saves = Checkpoints(
        workdir / "checkpoints", keep=spec.keep_checkpoints, keep_best=spec.keep_best
    )
    name = build.metric_name(config)

    def fresh() -> Any:
        return session.start_state(config, built.model, layout)

    def state_at(number: int) -> Any:
        """The state before a step, from the newest checkpoint on."""
        saves.wait()
        start = fresh()
        before = saves.restore_latest(start) or start
        return run(before, data, max(number - int(before.step), 0))[0]

    with (
        heartbeat.phase("training"),
        saves as checkpoints,
        stop.deferred(),
        contextlib.ExitStack() as stack,
    ):
        # 1. where the run stands
        state = fresh()
        with heartbeat.phase("reading the newest checkpoint"):
            state = (resumed and checkpoints.restore_latest(state)) or state
        since = checkpoints.block
        if since is not None and layout is not None:
            since = layout.replicate(since)
        start = int(state.step)
        if resumed:
            _say_where(workdir, start, spec.num_steps, is_over=since is None)
        # 2. what it leaves
        log: Any = Silence()
        progress: Any = Silence()
        if processes.is_first():
            log = MetricsLog(workdir, from_step=start - loop.num_steps(since))
            progress = Progress(
                start=start,
                total=spec.num_steps,
                steps_per_epoch=num_batches(built),
                split=config.eval.split,
            )
        stack.callback(log.close)
        stack.callback(progress.close)
        member = Member(config, workdir, checkpoints, log)
        recorder = Recorder(
            [member], built, layout=layout, stop=stop, progress=progress, label=name.upper()
        )
        parts = Parts(
            run,
            stop.asked,
            lambda step, steps, seconds, means, over: progress.part(
                step, steps, seconds, (name.upper(), float(means[name])), over=over
            ),
        )

        def advance(state: Any, steps: int, since: Any) -> Any:
            return parts(state, data, steps, since=since)

        # 3. its blocks
        for block in loop.blocks(advance, state, spec, since=since):
            state = block.state
            bad = nonfinite.first_bad_step(state, int(block.info.bad_step))
            if bad >= 0:
                progress.say(f"not finite at step {bad:,}: going back to keep what led to it")
                saves.wait()
                with heartbeat.phase(f"going back to step {bad:,}"):
                    raise nonfinite.stopped(workdir, bad, state_at, saves.steps, built=built)
            recorder.record(block)
    return state, recorder


def _say_where(workdir: Path, start: int, total: int, *, is_over: bool) -> None:
    if start == total and is_over:
        text = f"the run in {workdir} is complete; its figures and summary are made again"
    else:
        text = f"resuming the run in {workdir} at step {start:,} of {total:,}"
    processes.say(text)


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags)
