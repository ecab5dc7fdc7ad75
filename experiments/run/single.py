"""A run by itself: its parts put together, its blocks, its end."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from experiments import build
from experiments.data import Ahead, Dataset
from experiments.run import devices, estimate, heartbeat, loop, nonfinite, processes, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.contents import CHECKPOINTS
from experiments.run.folder import check_data
from experiments.run.metrics import MetricsLog, Progress, Silence
from experiments.run.parts import Parts
from experiments.run.recorder import Member, Recorder, num_batches
from experiments.run.session import Built
from experiments.run.stopping import Stop
from experiments.run.tracker import Trackers
from vi_jax.shard import Layout
from vi_jax.training import State, Totals


class _Run(NamedTuple):
    """What a run is made of."""

    built: Built
    workdir: Path
    layout: Layout
    stop: Stop
    checkpoints: Checkpoints
    advance: Any  # the `run` of `session.make_run`
    data: Any  # that it goes over
    trackers: Trackers


class _Start(NamedTuple):
    """Where a run stands."""

    state: State
    since: Totals | None  # the sums of the block that it was stopped inside

    @property
    def step(self) -> int:
        """Steps that are done."""
        return int(self.state.step)


def train(
    config: Any,
    workdir: Path,
    *,
    resumed: bool,
    stop: Stop | None = None,
    ahead: Ahead[Dataset] | None = None,
    trackers: Trackers | None = None,
) -> dict[str, Any]:
    """Runs what is left of a run and returns its summary; `stop` ends it early, after a save,
    `ahead` is the data set, where it is being read, and `trackers` are handed the metrics too.
    """
    layout = devices.make_layout(config)
    dataset = session.load_data(config, ahead)
    estimate.require_run(config, dataset)
    built = session.build_all(config, dataset)
    processes.from_first(lambda: check_data(workdir, built.dataset))
    _introduce(built, layout)
    state, recorder = take_steps(
        built,
        workdir,
        layout,
        resumed=resumed,
        stop=stop or Stop(),
        trackers=trackers or Trackers(),
    )
    measures = recorder.final_measures(0, state)
    params = devices.whole_params(state, layout)
    if not processes.is_first():
        return measures.summary
    from experiments.evals import closing  # with matplotlib, which the first steps do not wait for

    return closing.finish(built, workdir, params, measures)


def _introduce(built: Built, layout: Layout) -> None:
    """What is trained, on what."""
    config = built.config
    train = built.dataset.train
    session.say_report(config, built.dataset)
    processes.say(
        f"{config.name}: {train.num:,} training examples {built.x_shape} from "
        f"{built.dataset.source}"
    )
    if layout.num_shards > 1:
        processes.say(devices.describe(layout))
    if config.train.keep_best and config.eval.split == "test":
        processes.say(
            "note: the best checkpoint is chosen by the test split: its test ELBO is a maximum "
            "over noise (docs/runs.md)."
        )


def take_steps(
    built: Built,
    workdir: Path,
    layout: Layout,
    *,
    resumed: bool,
    stop: Stop,
    trackers: Trackers,
) -> tuple[State, Recorder]:
    """The steps that are left of a run, with their rows, evaluations and checkpoints; the state at
    the end, and the recorder.
    """
    spec = built.config.train
    advance, data = session.make_run(built, layout)
    saves = Checkpoints(workdir / CHECKPOINTS, keep=spec.keep_checkpoints, keep_best=spec.keep_best)
    with (
        heartbeat.phase("training"),
        saves,
        stop.deferred(),
        contextlib.ExitStack() as stack,
    ):
        run = _Run(built, workdir, layout, stop, saves, advance, data, trackers)
        start = _find_start(run, resumed=resumed)
        progress, recorder = _open_records(stack, run, start)
        return _advance(run, start, progress, recorder), recorder


def _find_start(run: _Run, *, resumed: bool) -> _Start:
    """The newest good checkpoint of a run that goes on, else the state before the first step."""
    state = _fresh(run)
    if resumed:
        with heartbeat.phase("reading the newest checkpoint"):
            state = run.checkpoints.restore_latest(state) or state
    start = _Start(state, run.layout.replicate(run.checkpoints.block))
    if resumed:
        _say_where(run, start)
    return start


def _fresh(run: _Run) -> State:
    return session.start_state(run.built.config, run.built.model, run.layout)


def _say_where(run: _Run, start: _Start) -> None:
    total = run.built.config.train.num_steps
    if start.step == total and start.since is None:
        text = f"the run in {run.workdir} is complete; its figures and summary are made again"
    else:
        text = f"resuming the run in {run.workdir} at step {start.step:,} of {total:,}"
    processes.say(text)


def _open_records(stack: contextlib.ExitStack, run: _Run, start: _Start) -> tuple[Any, Recorder]:
    """The live line and the recorder, which the stack closes; silent in all processes but one."""
    config = run.built.config
    log: Any = Silence()
    progress: Any = Silence()
    if processes.is_first():
        first_row = start.step - loop.num_steps(start.since)
        tracker = run.trackers.begin(config, run.workdir, from_step=first_row)
        log = MetricsLog(run.workdir, from_step=first_row, tracker=tracker)
        progress = Progress(
            start=start.step,
            total=config.train.num_steps,
            steps_per_epoch=num_batches(run.built),
            split=config.eval.split,
        )
    stack.callback(log.close)
    stack.callback(progress.close)
    member = Member(config, run.workdir, run.checkpoints, log)
    label = build.metric_name(config, run.built.model).upper()
    recorder = Recorder(
        [member], run.built, layout=run.layout, stop=run.stop, progress=progress, label=label
    )
    return progress, recorder


def _advance(run: _Run, start: _Start, progress: Any, recorder: Recorder) -> State:
    """Takes the blocks that are left and records them; the state at the end.

    Raises:
      UserError: a step was not finite; what led to it is kept.
    """
    name = build.metric_name(run.built.config, run.built.model)

    def report(step: int, steps: int, seconds: float | None, means: Any, over: bool) -> None:
        value = float(build.maximised(means, name))
        progress.part(step, steps, seconds, (name.upper(), value), over=over)

    parts = Parts(run.advance, run.stop.asked, report)

    def advance(state: State, steps: int, since: Totals | None) -> Any:
        return parts(state, run.data, steps, since=since)

    state = start.state
    for block in loop.blocks(advance, state, run.built.config.train, since=start.since):
        state = block.state
        bad = nonfinite.first_bad_step(state, int(block.info.bad_step))
        if bad >= 0:
            _keep_bad(run, bad, progress)
        recorder.record(block)
    return state


def _keep_bad(run: _Run, bad: int, progress: Any) -> NoReturn:
    """Goes back to a step that was not finite, keeps what led to it and raises UserError."""

    def state_at(number: int) -> State:
        """The state before a step, from the newest checkpoint on."""
        run.checkpoints.wait()
        start = _fresh(run)
        before = run.checkpoints.restore_latest(start) or start
        return run.advance(before, run.data, max(number - int(before.step), 0))[0]

    progress.say(f"not finite at step {bad:,}: going back to keep what led to it")
    run.checkpoints.wait()
    with heartbeat.phase(f"going back to step {bad:,}"):
        raise nonfinite.stopped(run.workdir, bad, state_at, run.checkpoints.steps, built=run.built)
