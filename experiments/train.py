"""Trains a model, evaluates it and leaves a folder worth looking at; run again, it goes on from the
last checkpoint.

    python -m experiments.train --config=configs/vae.py    # 8x8 digits, about a minute
    python -m experiments.train --config=configs/vae.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/vae.py --config.model.num_latents=2 \\
        --config.seed=1 --workdir=runs/plane
    python -m experiments.train --config=configs/replay.py:runs/plane/config.json    # the same run

Any field of the config can be set: --config.optim.learning_rate=1e-3. The run folder holds
config.json, environment.json, metrics.jsonl, timing.jsonl, tensorboard/, checkpoints/, figures/ and
summary.json.
"""

import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import cli, heartbeat, processes, settings


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The config, FILE[:VARIANT]; --config.FIELD=VALUE sets a field.",
        lock_config=True,
    )
    flags.DEFINE_string(
        "workdir", "", "The run folder; runs/NAME-HASH, the hash that of the config, if not given."
    )
    flags.DEFINE_bool("overwrite", False, "Delete the run that is in the folder and start anew.")
    processes.define_flags()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/vae.py, see --help for examples."
        )
    config = flags.FLAGS.config
    settings.validate(config)
    cli.set_up_jax()
    processes.join(flags.FLAGS.coordinator, flags.FLAGS.num_processes, flags.FLAGS.process_id)
    from experiments import lock, rundir
    from experiments.stopping import Stop

    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else rundir.default_folder(config)
    rundir.refuse_foreign(workdir)
    with processes.first_holds(lambda: lock.locked(workdir)), (stop := Stop()).listening():
        resumed = processes.from_first(
            lambda: rundir.open_folder(workdir, config, overwrite=flags.FLAGS.overwrite)
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
    import jax

    from experiments import build, measure, nonfinite, rundir, session
    from experiments.checkpoints import Checkpoints
    from experiments.metrics import MetricsLog, Progress, Silence, evaluation_row, training_row
    from experiments.parts import Parts, ends_at, evaluates_at
    from experiments.processes import any_of_them
    from experiments.stopping import Stop

    layout = session.make_layout(config)
    dataset = session.load_data(config)
    processes.from_first(lambda: rundir.check_data(workdir, dataset))
    model = session.make_model(config, dataset)
    x, labels = session.evaluation_set(config, dataset, config.eval.split)
    images = dataset.train.images
    spec = config.train
    keys = session.keys(config)
    num_batches = -(-len(images) // spec.batch_size)
    processes.say(
        f"{config.name}: {len(images):,} training examples {images.shape[1:]} from {dataset.source}"
    )
    if layout is not None:
        processes.say(session.describe(layout))

    run, data = session.make_run(config, model, dataset, layout)
    rate = build.learning_rate(config)
    measure_now = measure.make_measure(model, config)

    if spec.keep_best and config.eval.split == "test":
        processes.say(
            "note: the best checkpoint is chosen by the test split: its test ELBO is a maximum "
            "over noise (docs/runs.md)."
        )
    stop = stop or Stop()
    saves = Checkpoints(
        workdir / "checkpoints", keep=spec.keep_checkpoints, keep_best=spec.keep_best
    )
    name = build.metric_name(config)

    def state_at(number: int) -> Any:
        """The state before a step, from the newest checkpoint on."""
        saves.wait()
        fresh = session.start_state(config, model, layout)
        before = saves.restore_latest(fresh) or fresh
        return run(before, data, max(number - int(before.step), 0))[0]

    with heartbeat.phase("training"), saves as checkpoints, stop.deferred():
        state = session.start_state(config, model, layout)
        with heartbeat.phase("reading the newest checkpoint"):
            state = (resumed and checkpoints.restore_latest(state)) or state
        # the block that the run was stopped in
        start = int(state.step)
        block = checkpoints.block
        inside = int(block.steps) if block else 0
        if block is not None and layout is not None:
            block = layout.replicate(block)
        if resumed and start == spec.num_steps and block is None:
            processes.say(
                f"the run in {workdir} is complete; its figures and summary are made again"
            )
        elif resumed:
            processes.say(f"resuming the run in {workdir} at step {start:,} of {spec.num_steps:,}")
        writes = processes.is_first()
        log = MetricsLog(workdir, from_step=start - inside) if writes else Silence()
        progress = (
            Progress(
                start=start,
                total=spec.num_steps,
                steps_per_epoch=num_batches,
                split=config.eval.split,
            )
            if writes
            else Silence()
        )
        parts = Parts(
            run,
            stop.asked,
            lambda step, steps, seconds, means, over: progress.part(
                step, steps, seconds, (name.upper(), float(means[name])), over=over
            ),
        )
        measures = None
        elbo_now = None
        saved_at = time.monotonic()
        try:
            while (done := int(state.step)) < spec.num_steps or block is not None:
                last = ends_at(done, inside, spec)
                (state, info) = parts(state, data, last - done, since=block)
                block = None
                inside = 0
                now = int(state.step)
                if (bad := nonfinite.first_bad_step(state, int(info.bad_step))) >= 0:
                    progress.say(f"not finite at step {bad:,}: going back to keep what led to it")
                    saves.wait()
                    with heartbeat.phase(f"going back to step {bad:,}"):
                        raise nonfinite.stopped(
                            workdir,
                            bad,
                            state_at,
                            saves.steps,
                            config=config,
                            model=model,
                            dataset=dataset,
                        )
                ends = now == spec.num_steps
                evaluates = evaluates_at(now, last, spec)
                if (
                    (now < last or evaluates) and stop.asked()
                ):  # nor does an evaluation begin; the row comes when the run goes on
                    checkpoints.save(state, block=info.totals)
                    checkpoints.wait()
                    raise cli.Requeue(stop.sentence(f"step {now:,} of {spec.num_steps:,} is saved"))
                skipped = int(state.skipped)  # which the schedule of the learning rate has not seen
                row = training_row(
                    now, now / num_batches, float(rate(now - 1 - skipped)), info.metrics
                )
                if row.get("train/skipped"):
                    progress.say(
                        f"up to step {now:,}, {skipped:,} steps were not finite and are left "
                        f"out; {spec.max_skipped:,} may be"
                    )
                if evaluates:
                    with heartbeat.compiling(f"evaluating at step {now:,}"):
                        measures = measure_now(
                            session.key_at(keys.evaluate, now),
                            session.whole_params(state, layout),
                            x,
                        )
                    elbo_now = measures.summary["elbo"]["mean"]
                    row |= evaluation_row(config.eval.split, measures)
                    if alarm := measure.collapse_alarm(measures, config, now):
                        row["alarm"] = alarm
                        progress.say(alarm)
                log.write(
                    row,
                    {
                        "steps_per_second": progress.steps_per_second,
                        "seconds": time.perf_counter() - cli.STARTED,
                    },
                )
                progress.show(
                    now,
                    (name.upper(), row.get(f"train/{name}", float("nan"))),
                    elbo_now,
                    evaluated=bool(evaluates),
                )
                elbo = elbo_now if evaluates else None
                late = spec.checkpoint_minutes and any_of_them(
                    time.monotonic() - saved_at >= 60 * spec.checkpoint_minutes
                )
                stops = stop.asked()
                due = ends or stops or late or now % spec.checkpoint_every == 0
                if due or checkpoints.is_best(elbo):
                    checkpoints.save(state, elbo=elbo)
                    saved_at = time.monotonic()
                checkpoints.check()
                if stops and not ends:
                    checkpoints.wait()
                    raise cli.Requeue(stop.sentence(f"step {now:,} of {spec.num_steps:,} is saved"))
        finally:
            progress.close()
            log.close()
    if measures is None:
        with heartbeat.compiling("evaluating at the last step"):
            measures = measure_now(
                session.key_at(keys.evaluate, spec.num_steps),
                session.whole_params(state, layout),
                x,
            )
    params = jax.block_until_ready(session.whole_params(state, layout))
    if not processes.is_first():
        return measures.summary
    from experiments import finish  # and with it matplotlib, which the first steps do not wait for

    return finish.finish(config, workdir, model, params, dataset.num_levels, x, labels, measures)


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__ or "")
