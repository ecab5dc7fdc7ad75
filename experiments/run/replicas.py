"""Runs side by side in one program: seeds, and learning rates, each with a run folder of its own
under that of the sweep.

A replica is the run that its config.json describes: it is evaluated, sampled from and gone on with
like any other.
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from experiments import build, cli, facts, sweep
from experiments.data import Ahead, Dataset
from experiments.run import devices, estimate, heartbeat, held_out, loop, processes, session
from experiments.run.folder import check_data
from experiments.run.metrics import MetricsLog, Progress
from experiments.run.parts import Parts
from experiments.run.recorder import Member, Recorder, View, num_batches
from experiments.run.replicas_end import finish
from experiments.run.replicas_start import STOPPED, Numbers, Replica, open_all, restored
from experiments.run.session import Built
from experiments.run.stopping import Stop
from experiments.run.tracker import Trackers
from vi_jax import files
from vi_jax.shard import Layout
from vi_jax.training import State, Totals


class _Run(NamedTuple):
    """What the runs have in common."""

    built: Built
    replicas: list[Replica]
    layout: Layout
    stop: Stop
    trackers: Trackers


class _Start(NamedTuple):
    """Where the runs stand: at the same step."""

    states: State  # leaves [R, ...] but for the step
    alive: np.ndarray  # [R], which go on; what stops is marked in place
    since: Totals | None  # the sums of the block that they were stopped inside

    @property
    def step(self) -> int:
        """Steps that are done."""
        return int(self.states.step)


def train(
    config: Any,
    workdir: Path,
    *,
    stop: Stop,
    ahead: Ahead[Dataset] | None = None,
    trackers: Trackers | None = None,
) -> list[dict[str, Any]]:
    """Trains what is left of all runs and returns their summaries; `stop` ends them early, after a
    save, `ahead` is the data set, where it is being read, and `trackers` are handed the metrics.
    """
    layout = _layout(config)
    dataset = session.load_data(config, ahead)
    estimate.require_run(config, dataset, num_replicas=sweep.count(config))
    runs = sweep.configs(config)
    built = session.build_all(config, dataset)
    held_out.require(built)
    if sweep.of_model(config):
        sweep.require_models(runs, facts.of_data(config, built.dataset))
    check_data(workdir, built.dataset)
    train = built.dataset.train
    session.say_report(config, built.dataset)
    processes.say(
        f"{config.name}: {len(runs)} replicas side by side, {train.num:,} training examples "
        f"{built.x_shape}"
    )
    with heartbeat.phase("training"), contextlib.ExitStack() as stack, stop.deferred():
        with heartbeat.phase("opening the folders of the replicas"):
            replicas = open_all(stack, workdir, runs, built.dataset)
        run = _Run(built, replicas, layout, stop, trackers or Trackers())
        with heartbeat.compiling("initialising the replicas, or reading their checkpoints"):
            start = _Start(*restored(replicas, config, built.model))
        progress, recorder = _open_records(stack, run, start)
        states = _advance(run, start, progress, recorder)
    if not start.alive.any():
        raise cli.UserError(
            f"none of the {len(replicas)} replicas is left: each has a {STOPPED} in its folder; "
            "try lower rates."
        )
    ends = {}
    for which in map(int, np.flatnonzero(start.alive)):
        state = vi.replicas.pick(states, which)
        measures = recorder.final_measures(which, state)
        ends[which] = (devices.whole_params(state, layout), measures)
    return finish(built, workdir, replicas, ends)


def _open_records(
    stack: contextlib.ExitStack, run: _Run, start: _Start
) -> tuple[Progress, Recorder]:
    """The live line and the recorder of all runs, which the stack closes."""
    config = run.built.config
    first_row = start.step - loop.num_steps(start.since)
    members = []
    for which, each in enumerate(run.replicas):
        tracker = run.trackers.begin(each.config, each.folder, from_step=first_row)
        log = MetricsLog(each.folder, from_step=first_row, tracker=tracker)
        stack.callback(log.close)
        prefix = f"replica {which}: "
        members.append(Member(each.config, each.folder, each.checkpoints, log, prefix))
    progress = Progress(
        start=start.step,
        total=config.train.num_steps,
        steps_per_epoch=num_batches(run.built),
        split=config.eval.split,
    )
    stack.callback(progress.close)
    recorder = Recorder(
        members,
        run.built,
        layout=run.layout,
        stop=run.stop,
        progress=progress,
        view=SIDE_BY_SIDE,
        label=_label(run.built),
    )
    return progress, recorder


def _advance(run: _Run, start: _Start, progress: Progress, recorder: Recorder) -> State:
    """Takes the blocks that are left and records them; the states at the end."""
    config = run.built.config
    alive = start.alive
    name = build.metric_name(config, run.built.model)
    several = _make_run(run)
    data = session.on_devices(session.examples(config, run.built.dataset.train), run.layout)

    def report(step: int, steps: int, seconds: float | None, means: Any, over: bool) -> None:
        best = _best_of(build.maximised(means, name), alive)
        progress.part(step, steps, seconds, (_label(run.built), best), over=over)

    parts = Parts(several, run.stop.asked, report)

    def advance(states: State, steps: int, since: Totals | None) -> Any:
        return parts(states, data, steps, alive, since=since)

    def goes_on() -> bool:
        return bool(alive.any())

    states = start.states
    for block in loop.blocks(advance, states, config.train, since=start.since, goes_on=goes_on):
        states = block.state
        alive[:] = _stopped(run.replicas, alive, np.asarray(block.info.bad_step), progress)
        recorder.record(block, [int(which) for which in np.flatnonzero(alive)])
    return states


def _make_run(run: _Run) -> Any:
    """The `run` of all replicas, each at numbers of its own."""
    built = run.built
    config = built.config
    rule = with_rate(build.optimizer(config))
    make = partial(build.step, config, num_data=built.dataset.train.num, rule=rule)
    step = make(built.model, built.units)
    if sweep.of_model(config):
        known = facts.of_data(config, built.dataset)

        def step(state: State, batch: Any) -> Any:
            numbers = state.opt_state[1].of_model
            return make(build.model(config, known, numbers), built.units)(state, batch)

    return vi.replicas.make_run(step, batch_size=config.train.batch_size, layout=run.layout)


def _label(built: Built) -> str:
    """Of the bound on the live line."""
    return f"best {build.metric_name(built.config, built.model).upper()}"


def with_rate(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser whose updates are scaled by a number in its state: a learning rate for each
    replica. Its state is (the inner one, `Numbers`).
    """

    def init(params: Any) -> Any:
        return inner.init(params), Numbers(jnp.ones(()), {})

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        (own, numbers) = state
        updates, new = inner.update(gradient, own, params)
        scaled = jax.tree.map(lambda leaf: leaf * numbers.rate.astype(leaf.dtype), updates)
        return scaled, (new, numbers)

    return optax.GradientTransformation(init, update)


def _layout(config: Any) -> Layout:
    if jax.process_count() > 1:
        raise cli.UserError(
            "config.replicas are trained by one process; in several, set config.replicas=1 and "
            "no sweep."
        )
    num = sweep.count(config)
    layout = devices.make_layout(config, cuts_batches=False)
    if num % layout.num_shards:
        raise cli.UserError(
            f"{num} replicas do not lie evenly over {layout.num_shards} devices; take a multiple "
            "of that."
        )
    return layout


def _best_of(values: Any, alive: np.ndarray) -> float:
    """The highest of the values [R] of the runs that go on; nan where none is a number."""
    found = np.asarray(values)[alive]
    found = found[~np.isnan(found)]
    return float(found.max()) if len(found) else float("nan")


def _alone(states: State, which: int) -> State:
    """The state of one run as the run by itself has it."""
    state = vi.replicas.pick(states, which)
    return state._replace(opt_state=state.opt_state[0])


def _leaf(tree: Any, which: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[which], tree)


SIDE_BY_SIDE = View(_alone, _leaf)


def _stopped(
    replicas: list[Replica], alive: np.ndarray, bad: np.ndarray, progress: Progress
) -> np.ndarray:
    """Who goes on; what stops is recorded and told."""
    for which in np.flatnonzero(alive & (bad >= 0)):
        files.write_json(replicas[which].folder / STOPPED, {"step": int(bad[which])})
        progress.say(
            f"replica {which} stops: its loss or gradient was not finite at step {bad[which]:,}; "
            "the others go on"
        )
    return alive & (bad < 0)
