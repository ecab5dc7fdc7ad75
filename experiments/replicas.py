"""Runs side by side in one program: seeds, and learning rates, each with a run folder of its own
under that of the sweep.

A replica is the run that its config.json describes: it is evaluated, sampled from and gone on with
like any other.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from experiments import build, cli, files
from experiments.evals.base import mean_stderr
from experiments.run import estimate, heartbeat, loop, processes, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.folder import check_data, open_folder
from experiments.run.metrics import METRICS, MetricsLog, Progress, read_rows
from experiments.run.parts import Parts
from experiments.run.record import read_json
from experiments.run.recorder import Member, Recorder, View, num_batches
from experiments.run.together import common_steps, newest_common_step
from vi_jax.training import State, Totals

STOPPED = "stopped.json"
SUMMARY = "replicas.json"


class Replica(NamedTuple):
    """One of the runs."""

    config: Any
    folder: Path
    checkpoints: Checkpoints


def configs(config: Any) -> list[Any]:
    """The configs of the runs: config.replicas seeds from config.seed on, at each of
    config.sweep.learning_rates.
    """
    runs = []
    for rate in config.sweep.learning_rates or (build.peak_rate(config),):
        for number in range(config.replicas):
            one = config.copy_and_resolve_references()
            with one.unlocked():
                one.replicas = 1
                one.sweep.learning_rates = ()
                one.seed = config.seed + number
                build.set_peak_rate(one, float(rate))
            runs.append(one)
    return runs


def train(config: Any, workdir: Path, *, stop: Any) -> list[dict[str, Any]]:
    """Trains what is left of all runs and returns their summaries; `stop` (`stopping.Stop`) ends
    them early, after a save.
    """
    layout = _layout(config)
    dataset = session.load_data(config)
    estimate.require_run(config, dataset, num_replicas=_count(config))
    runs = configs(config)
    built = session.build_all(config, dataset)
    check_data(workdir, built.dataset)
    images = built.dataset.train.images
    processes.say(
        f"{config.name}: {len(runs)} replicas side by side, {len(images):,} training examples "
        f"{images.shape[1:]}"
    )
    with heartbeat.phase("training"), contextlib.ExitStack() as stack, stop.deferred():
        with heartbeat.phase("opening the folders of the replicas"):
            replicas = _open_all(stack, workdir, runs, built.dataset)
        states, alive, recorder = _run(stack, replicas, built, layout, stop)
    if not alive.any():
        raise cli.UserError(
            f"none of the {len(replicas)} replicas is left: each has a {STOPPED} in its folder; "
            "try lower rates."
        )
    ends = {}
    for which in map(int, np.flatnonzero(alive)):
        state = vi.replicas.pick(states, which)
        measures = recorder.final_measures(which, state)
        ends[which] = (session.whole_params(state, layout), measures)
    return _finish(built, workdir, replicas, ends)


def _run(
    stack: contextlib.ExitStack,
    replicas: list[Replica],
    built: session.Built,
    layout: Any,
    stop: Any,
) -> tuple[State, np.ndarray, Recorder]:
    """The states at the end, who has come to it, and the recorder of all."""
    config = built.config
    spec = config.train
    step = build.step(config, built.model, built.units, rule=with_rate(build.optimizer(config)))
    run = vi.replicas.make_run(step, batch_size=spec.batch_size, layout=layout)
    data = session.on_devices(session.examples(config, built.dataset.train), layout)
    name = build.metric_name(config)
    label = f"best {name.upper()}"
    # 1. where the runs stand
    with heartbeat.compiling("initialising the replicas, or reading their checkpoints"):
        states, alive, since = _restored(replicas, config, built.model)
    start = int(states.step)
    # 2. what they leave
    first_row = start - loop.num_steps(since)
    members = []
    for which, each in enumerate(replicas):
        log = stack.enter_context(contextlib.closing(MetricsLog(each.folder, from_step=first_row)))
        prefix = f"replica {which}: "
        members.append(Member(each.config, each.folder, each.checkpoints, log, prefix))
    progress = Progress(
        start=start,
        total=spec.num_steps,
        steps_per_epoch=num_batches(built),
        split=config.eval.split,
    )
    stack.callback(progress.close)
    recorder = Recorder(
        members, built, layout=layout, stop=stop, progress=progress, view=SIDE_BY_SIDE, label=label
    )
    parts = Parts(
        run,
        stop.asked,
        lambda step, steps, seconds, means, over: progress.part(
            step, steps, seconds, (label, _best_of(means[name], alive)), over=over
        ),
    )

    def advance(states: State, steps: int, since: Totals | None) -> Any:
        return parts(states, data, steps, alive, since=since)

    # 3. their blocks
    some_are_left = lambda: bool(alive.any())  # noqa: E731
    for block in loop.blocks(advance, states, spec, since=since, goes_on=some_are_left):
        states = block.state
        alive[:] = _stopped(replicas, alive, np.asarray(block.info.bad_step), progress)
        recorder.record(block, [int(which) for which in np.flatnonzero(alive)])
    return states, alive, recorder


def with_rate(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser whose updates are scaled by a number in its state, 1 at first: a learning rate
    for each replica.
    """

    def init(params: Any) -> Any:
        return inner.init(params), jnp.ones(())

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        updates, new = inner.update(gradient, state[0], params)
        return jax.tree.map(lambda leaf: leaf * state[1].astype(leaf.dtype), updates), (
            new,
            state[1],
        )

    return optax.GradientTransformation(init, update)


def _count(config: Any) -> int:
    """How many runs there are, before there are their configs."""
    return config.replicas * max(len(config.sweep.learning_rates), 1)


def _layout(config: Any) -> Any:
    if jax.process_count() > 1:
        raise cli.UserError(
            "config.replicas are trained by one process; in several, set config.replicas=1 and "
            "no sweep."
        )
    num = _count(config)
    layout = session.make_layout(config, cuts_batches=False)
    if layout is not None and num % layout.num_shards:
        raise cli.UserError(
            f"{num} replicas do not lie evenly over {layout.num_shards} devices; take a multiple "
            "of that."
        )
    return layout


def _open_all(
    stack: contextlib.ExitStack, workdir: Path, runs: list[Any], dataset: Any
) -> list[Replica]:
    """The replicas; each keeps the newest checkpoint that all which go on have, since they go on
    from one step together.
    """
    replicas: list[Replica] = []

    def common() -> set[int]:
        return newest_common_step(each.checkpoints for each in _alive(replicas))

    for number, one in enumerate(runs):
        folder = workdir / f"replica_{number}"
        open_folder(folder, one, overwrite=False)
        check_data(folder, dataset)
        checkpoints = Checkpoints(
            folder / "checkpoints",
            keep=one.train.keep_checkpoints,
            keep_best=one.train.keep_best,
            also_keeps=common,
        )
        replicas.append(Replica(one, folder, stack.enter_context(checkpoints)))
    return replicas


def _alive(replicas: list[Replica]) -> list[Replica]:
    """Those that have not stopped."""
    return [each for each in replicas if not (each.folder / STOPPED).exists()]


def _restored(
    replicas: list[Replica], config: Any, model: vi.Model
) -> tuple[State, np.ndarray, Totals | None]:
    """The states at the newest step that all have saved which have not stopped, who they are, and
    the block they stopped in.
    """
    alive = np.array([not (each.folder / STOPPED).exists() for each in replicas])
    fresh = [session.start_state(each.config, model) for each in replicas]
    living = _alive(replicas)
    states = fresh
    blocks: list[Totals | None] = [None] * len(replicas)
    first = 0
    for step in sorted(common_steps(each.checkpoints for each in living), reverse=True):
        found = _at_step(replicas, alive, fresh, step)
        if found is not None:
            states, blocks = found
            first = step
            break
    else:
        if living and all(each.checkpoints.steps for each in living):
            raise cli.UserError(
                f"no step has a checkpoint of each of the {len(living)} replicas that can be "
                "read; start again with --overwrite, or restore their folders from a copy."
            )
    if first:
        processes.say(
            f"resuming {int(alive.sum())} replicas at step {first:,} of {config.train.num_steps:,}"
        )
    base = build.peak_rate(config)
    rates = [jnp.float32(build.peak_rate(each.config) / base) for each in replicas]
    side = [
        state._replace(step=jnp.int32(first), opt_state=(state.opt_state, rate))
        for state, rate in zip(states, rates, strict=True)
    ]
    return vi.replicas.stack(side), alive, _block_of(blocks, alive)


def _at_step(
    replicas: list[Replica], alive: np.ndarray, fresh: list[State], step: int
) -> tuple[list[State], list[Totals | None]] | None:
    """The states of a step and the blocks that they are in, of runs that have stopped those given
    and none.

    None where one is damaged, or some were saved inside a block there and others were not. Where
    some have evaluated and others were killed before, all do it again.
    """
    states = list(fresh)
    blocks: list[Totals | None] = [None] * len(replicas)
    living = np.flatnonzero(alive)
    is_inside = False
    for which in living:
        saved = replicas[which].checkpoints
        try:
            states[which] = saved.restore(str(step), fresh[which]) or fresh[which]
        except cli.UserError as error:
            print(f"warning: {error}", file=sys.stderr)
            return None
        blocks[which] = saved.saved_block
        is_inside = is_inside or saved.block is not None
    if not is_inside:
        return states, [None] * len(replicas)
    agrees = len({loop.num_steps(blocks[which]) for which in living}) == 1
    return (states, blocks) if agrees else None


def _block_of(blocks: list[Totals | None], alive: np.ndarray) -> Totals | None:
    """The sums of the replicas side by side; those of a run that has stopped count for nothing and
    are any other's.
    """
    some = next(
        (block for block, lives in zip(blocks, alive, strict=True) if lives and block is not None),
        None,
    )
    if some is None:
        return None
    own = [
        block if lives and block is not None else some
        for block, lives in zip(blocks, alive, strict=True)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)


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


def _finish(
    built: session.Built, workdir: Path, replicas: list[Replica], ends: dict[int, Any]
) -> list[dict[str, Any]]:
    """Evaluates each run, writes their summaries and replicas.json, draws their curves and prints
    the table.
    """
    from experiments import figures
    from experiments.evals import closing

    config = built.config
    rows = []
    for which, each in enumerate(replicas):
        row = {
            "replica": which,
            "seed": each.config.seed,
            "learning_rate": build.peak_rate(each.config),
        }
        if which in ends:
            params, measures = ends[which]
            own = built._replace(config=each.config, keys=session.keys(each.config))
            with heartbeat.phase(f"summarising {each.folder.name} of {len(replicas)} replicas"):
                rows.append(row | closing.summarise(own, each.folder, params, measures))
        else:
            rows.append(row | {"stopped": read_json(each.folder / STOPPED)["step"]})
    files.write_json(workdir / SUMMARY, rows)
    curves = {
        _name(row): read_rows(each.folder / METRICS)
        for row, each in zip(rows, replicas, strict=True)
    }
    files.make_folder(workdir / "figures")
    figures.replica_curves(
        workdir / "figures" / "replicas.png",
        curves,
        key=f"{config.eval.split}/elbo",
        title=f"{config.name}: ELBO of the replicas",
    )
    print(table(config, rows))
    print(
        f"  {time.perf_counter() - cli.STARTED:.0f} s in all; {SUMMARY}, figures/replicas.png "
        f"and replica_*/ in {workdir}"
    )
    print(f"  pictures: python -m experiments.sample --workdir={workdir}/replica_{_best(rows)}")
    return rows


def table(config: Any, rows: list[dict[str, Any]]) -> str:
    """One line for each run, and the mean over seeds with its standard error for each learning
    rate; nats.
    """
    lines = [
        f"{config.name}: nats per example on the {config.eval.split} split, mean ± standard "
        "error over examples"
    ]
    lines += [f"  {'replica':<9}{'seed':>5}  {'learning rate':>13}  {'ELBO':>20}  {'log p(x)':>20}"]
    for row in rows:
        head = f"  {row['replica']:<9}{row['seed']:>5}  {row['learning_rate']:>13g}  "
        if "stopped" in row:
            lines.append(f"{head}not finite at step {row['stopped']:,}")
            continue
        evidence = _pair(row["log_evidence"]) if "log_evidence" in row else ""
        lines.append(f"{head}{_pair(row['elbo']):>20}  {evidence:>20}")
    for rate in dict.fromkeys(row["learning_rate"] for row in rows):
        elbos = np.array(
            [row["elbo"]["mean"] for row in rows if row["learning_rate"] == rate and "elbo" in row]
        )
        if len(elbos) > 1:
            spread = mean_stderr(elbos)
            lines.append(
                f"  over {len(elbos)} seeds at {rate:g}: ELBO {_pair(spread)}, standard error "
                "over seeds"
            )
    return "\n".join(lines)


def _pair(pair: dict[str, float]) -> str:
    return f"{pair['mean']:.3f} ± {pair['stderr']:.3f}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['replica']}: seed {row['seed']}, rate {row['learning_rate']:g}"


def _best(rows: list[dict[str, Any]]) -> int:
    return max((row for row in rows if "elbo" in row), key=lambda row: row["elbo"]["mean"])[
        "replica"
    ]
