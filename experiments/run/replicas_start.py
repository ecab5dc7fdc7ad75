"""Where replicas start: their folders, and the newest step that all of them have saved."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import build, cli, sweep, terminal
from experiments.run import loop, processes, session
from experiments.run.checkpoints import Checkpoints
from experiments.run.contents import CHECKPOINTS
from experiments.run.folder import check_data, open_folder
from experiments.run.together import common_steps, newest_common_step
from vi_jax.training import State, Totals

STOPPED = "stopped.json"


class Numbers(NamedTuple):
    """What differs between replicas beside their keys."""

    rate: Any  # what updates are scaled by
    of_model: dict[str, Any]  # arguments of the model


class Replica(NamedTuple):
    """One of the runs."""

    config: Any
    folder: Path
    checkpoints: Checkpoints


def open_all(
    stack: contextlib.ExitStack, workdir: Path, runs: list[Any], dataset: Any
) -> list[Replica]:
    """The replicas; each keeps the newest checkpoint that all which go on have, since they go on
    from one step together.
    """
    replicas: list[Replica] = []

    def common() -> set[int]:
        return newest_common_step(each.checkpoints for each in alive_of(replicas))

    for number, one in enumerate(runs):
        folder = workdir / f"replica_{number}"
        open_folder(folder, one, overwrite=False)
        check_data(folder, dataset)
        checkpoints = Checkpoints(
            folder / CHECKPOINTS,
            keep=one.train.keep_checkpoints,
            keep_best=one.train.keep_best,
            also_keeps=common,
        )
        replicas.append(Replica(one, folder, stack.enter_context(checkpoints)))
    return replicas


def alive_of(replicas: list[Replica]) -> list[Replica]:
    """Those that have not stopped."""
    return [each for each in replicas if not (each.folder / STOPPED).exists()]


def restored(
    replicas: list[Replica], config: Any, model: vi.Model
) -> tuple[State, np.ndarray, Totals | None]:
    """The states at the newest step that all have saved which have not stopped, who they are, and
    the block they stopped in.
    """
    alive = np.array([not (each.folder / STOPPED).exists() for each in replicas])
    fresh = session.start_states([each.config for each in replicas], model)
    living = alive_of(replicas)
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
    swept = sweep.of_model(config)
    side = []
    for state, each in zip(states, replicas, strict=True):
        rate = jnp.float32(build.peak_rate(each.config) / base)
        of_model = sweep.numbers(each.config, swept)
        numbers = Numbers(rate, jax.tree.map(jnp.float32, of_model))
        side.append(state._replace(step=jnp.int32(first), opt_state=(state.opt_state, numbers)))
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
            terminal.say(f"warning: {error}")
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
