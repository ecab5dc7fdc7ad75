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
from experiments import (
    build,
    cli,
    files,
    finish,
    heartbeat,
    measure,
    processes,
    rundir,
    session,
)
from experiments.checkpoints import (
    Checkpoints,
    common_steps,
    newest_common_step,
    wait_for_all,
)
from experiments.metrics import (
    METRICS,
    MetricsLog,
    Progress,
    evaluation_row,
    read_rows,
    training_row,
)
from experiments.parts import Parts, ends_at, evaluates_at
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
    for rate in config.sweep.learning_rates or (config.optim.learning_rate,):
        for number in range(config.replicas):
            one = config.copy_and_resolve_references()
            with one.unlocked():
                one.replicas = 1
                one.sweep.learning_rates = ()
                one.seed = config.seed + number
                one.optim.learning_rate = float(rate)
            runs.append(one)
    return runs


def train(config: Any, workdir: Path, *, stop: Any) -> list[dict[str, Any]]:
    """Trains what is left of all runs and returns their summaries; `stop` (`stopping.Stop`) ends
    them early, after a save.
    """
    runs = configs(config)
    spec = config.train
    layout = _layout(config)
    dataset = session.load_data(config)
    rundir.check_data(workdir, dataset)
    model = session.make_model(config, dataset)
    images = dataset.train.images
    x, _ = session.evaluation_set(config, dataset, config.eval.split)
    processes.say(
        f"{config.name}: {len(runs)} replicas side by side, {len(images):,} training examples "
        f"{images.shape[1:]}"
    )
    step = build.step(config, model, dataset.num_levels, rule=with_rate(build.optimizer(config)))
    run = vi.replicas.make_run(step, batch_size=spec.batch_size, layout=layout)
    data = session.on_devices(images, layout)
    measure_now = measure.make_measure(model, config)
    num_batches = -(-len(images) // spec.batch_size)
    name = build.metric_name(config)
    label = f"best {name.upper()}"

    def measured(replica: Replica, state: State) -> measure.Measures:
        key = session.key_at(session.keys(replica.config).evaluate, int(state.step))
        with heartbeat.compiling(f"evaluating {replica.folder.name} at step {int(state.step):,}"):
            return measure_now(key, session.whole_params(state, layout), x)

    with heartbeat.phase("training"), contextlib.ExitStack() as stack, stop.deferred():
        with heartbeat.phase("opening the folders of the replicas"):
            replicas = _open_all(stack, workdir, runs, dataset)
        with heartbeat.compiling("initialising the replicas, or reading their checkpoints"):
            states, alive, block = _restored(replicas, config, model)
        start = int(states.step)
        saved_at = time.monotonic()
        best = None
        inside = _num_steps(block)
        logs = [
            stack.enter_context(
                contextlib.closing(MetricsLog(each.folder, from_step=start - inside))
            )
            for each in replicas
        ]
        progress = Progress(
            start=start, total=spec.num_steps, steps_per_epoch=num_batches, split=config.eval.split
        )
        stack.callback(progress.close)
        parts = Parts(
            run,
            stop.asked,
            lambda step, steps, seconds, means, over: progress.part(
                step, steps, seconds, (label, _best_of(means[name], alive)), over=over
            ),
        )
        while ((done := int(states.step)) < spec.num_steps or block is not None) and alive.any():
            last = ends_at(done, inside, spec)
            (states, info) = parts(states, data, last - done, alive, since=block)
            block = None
            inside = 0
            metrics = jax.device_get(info.metrics)
            now = int(states.step)
            alive = _stopped(replicas, alive, np.asarray(info.bad_step), progress)
            evaluates = evaluates_at(now, last, spec)
            ends = now == spec.num_steps
            stops = stop.asked()
            if stops and (now < last or evaluates):  # as in experiments.train
                for which in np.flatnonzero(alive):
                    own = jax.tree.map(lambda leaf, which=which: leaf[which], info.totals)
                    replicas[which].checkpoints.save(
                        _alone(vi.replicas.pick(states, int(which))), block=own
                    )
                wait_for_all(each.checkpoints for each in _alive(replicas))
                raise cli.Requeue(
                    stop.sentence(f"step {now:,} of {spec.num_steps:,} of every replica is saved")
                )
            late = (
                spec.checkpoint_minutes
                and time.monotonic() - saved_at >= 60 * spec.checkpoint_minutes
            )
            elbos = []
            saves = ends or stops or late or now % spec.checkpoint_every == 0
            if saves:
                wait_for_all(each.checkpoints for each in _alive(replicas))
            for which in np.flatnonzero(alive):
                replica = replicas[which]
                state = vi.replicas.pick(states, int(which))
                own = {key: value[which] for key, value in metrics.items()}
                elbo = None
                row = training_row(
                    now, now / num_batches, float(build.learning_rate(replica.config)(now - 1)), own
                )
                if evaluates:
                    measures = measured(replica, state)
                    elbo = measures.summary["elbo"]["mean"]
                    elbos.append(elbo)
                    row |= evaluation_row(config.eval.split, measures)
                    if alarm := measure.collapse_alarm(measures, replica.config, now):
                        row["alarm"] = alarm
                        progress.say(f"replica {which}: {alarm}")
                logs[which].write(row, {"seconds": time.perf_counter() - cli.STARTED})
                if saves or replica.checkpoints.is_best(elbo):
                    replica.checkpoints.save(_alone(state), elbo=elbo)
                replica.checkpoints.check()
            best = max(elbos, default=best)
            saved_at = time.monotonic() if saves else saved_at
            if alive.any():
                progress.show(
                    now,
                    (label, _best_of(metrics[name], alive)),
                    best,
                    evaluated=evaluates,
                )
            if stops and not ends:
                wait_for_all(each.checkpoints for each in _alive(replicas))
                raise cli.Requeue(
                    stop.sentence(f"step {now:,} of {spec.num_steps:,} of every replica is saved")
                )
        wait_for_all(each.checkpoints for each in _alive(replicas))
        if not alive.any():
            raise cli.UserError(
                f"none of the {len(replicas)} replicas is left: each has a {STOPPED} in its "
                "folder; try lower rates."
            )
    finals = {int(which): vi.replicas.pick(states, int(which)) for which in np.flatnonzero(alive)}
    return _finish(
        config,
        workdir,
        replicas,
        {which: (state, measured(replicas[which], state)) for which, state in finals.items()},
        model,
        x,
        layout,
    )


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


def _layout(config: Any) -> Any:
    if jax.process_count() > 1:
        raise cli.UserError(
            "config.replicas are trained by one process; in several, set config.replicas=1 and "
            "no sweep."
        )
    num = len(configs(config))
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
        rundir.open_folder(folder, one, overwrite=False)
        rundir.check_data(folder, dataset)
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
    base = config.optim.learning_rate
    rates = [jnp.float32(each.config.optim.learning_rate / base) for each in replicas]
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
    agrees = len({_num_steps_of(blocks[which]) for which in living}) == 1
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


def _num_steps_of(block: Totals | None) -> int:
    """Of the block that one run was stopped in."""
    return 0 if block is None else int(block.steps)


def _num_steps(block: Totals | None) -> int:
    """Of a block that a sweep was stopped in."""
    return 0 if block is None else int(block.steps[0])


def _alone(state: State) -> State:
    """The state as the run by itself has it."""
    return state._replace(opt_state=state.opt_state[0])


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
    config: Any,
    workdir: Path,
    replicas: list[Replica],
    ends: dict[int, Any],
    model: Any,
    x: Any,
    layout: Any,
) -> list[dict[str, Any]]:
    """Evaluates each run, writes their summaries and replicas.json, draws their curves and prints
    the table.
    """
    from experiments import figures

    rows = []
    for which, each in enumerate(replicas):
        row = {
            "replica": which,
            "seed": each.config.seed,
            "learning_rate": each.config.optim.learning_rate,
        }
        if which in ends:
            state, measures = ends[which]
            params = session.whole_params(state, layout)
            with heartbeat.phase(f"summarising {each.folder.name} of {len(replicas)} replicas"):
                summary = finish.summarise(each.config, each.folder, model, params, x, measures)
            rows.append(row | summary)
        else:
            rows.append(row | {"stopped": rundir.read_json(each.folder / STOPPED)["step"]})
    files.write_json(workdir / SUMMARY, rows)
    curves = {
        _name(row): read_rows(each.folder / METRICS)
        for row, each in zip(rows, replicas, strict=True)
    }
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
        told = (
            f"not finite at step {row['stopped']:,}"
            if "stopped" in row
            else f"{_pair(row['elbo']):>20}  {_pair(row['log_evidence']):>20}"
        )
        lines.append(head + told)
    for rate in dict.fromkeys(row["learning_rate"] for row in rows):
        elbos = np.array(
            [row["elbo"]["mean"] for row in rows if row["learning_rate"] == rate and "elbo" in row]
        )
        if len(elbos) > 1:
            spread = measure.mean_stderr(elbos)
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
