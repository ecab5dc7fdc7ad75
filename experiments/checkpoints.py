"""Checkpoints by Orbax: asynchronous, atomic, the last few and the best kept, each with a checksum
of its numbers.

A checkpoint holds the whole `vi_jax.State`; the positions in the data and in the record of metrics
follow from its step. What is restored is compared with the checksum that was saved beside it, so
that a damaged file is found and named instead of trained from. Of a run that was stopped inside a
block of steps, the sums of the block are beside them too. The arrays may lie on any mesh: every
process writes its own shards, and a state is restored to where the state given lies.

Nothing is removed before what takes its place is whole and on the disk (`step_folders`): whenever a
process ends, the folder holds a checkpoint that was whole before or one that is whole now. A
checkpoint is never written over. Where the state that it holds is saved again, what was not known
when it was written (an ELBO, that the block is over) is added in a file of its own.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import files, heartbeat, processes, step_folders
from experiments.checksum import checksum
from experiments.cli import UserError
from experiments.parts import as_numbers, block_leaves, from_numbers
from experiments.storage import hush, read_once, reason, saving_context
from vi_jax.training import State, Totals

# what is saved beside the arrays
CHECKSUM = "checksum"
ELBO = "elbo"
BLOCK = "block"
IS_OVER = "block_is_over"
LATER = "later.json"  # in the folder of a checkpoint: what was learnt once it was written


class _Save(NamedTuple):
    """A save that is under way."""

    step: int
    response: Any  # Orbax's
    beside: dict[str, Any]
    best: tuple[float, int] | None  # the best of all, once this one is whole: its ELBO, its step


class Checkpoints:
    """The checkpoints of one run folder; use as a context manager, so that the last save is
    finished.

    Args:
      folder: of the checkpoints alone.
      keep: how many of the last ones are kept.
      keep_best: the one with the highest ELBO is kept too.
      read_only: nothing is removed, not even what a save that was killed has left: another process
        may be saving.
      also_keeps: steps that are kept besides, asked for before each removal.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        keep_best: bool = False,
        read_only: bool = False,
        also_keeps: Callable[[], Collection[int]] = tuple,
    ) -> None:
        hush()
        self.folder = folder.absolute()
        self.block: Totals | None = None  # that the state restored last is in; None between two
        self.saved_block: Totals | None = None  # that it was in when it was saved
        self._keep = keep
        self._keeps_best = keep_best
        self._also_keeps = also_keeps
        self._save: _Save | None = None
        self._last = -1  # the step saved last
        # What lies beside those that this process has written whole or read back whole.
        self._known: dict[int, dict[str, Any]] = {}
        self._damaged: set[int] = set()
        self._steps = set(processes.from_first(lambda: self._open(read_only)))
        self._best = self._find_best() if keep_best else None  # its ELBO and its step

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.wait()
        except UserError as failure:
            if error is None:
                raise
            print(f"warning: {failure}", file=sys.stderr)

    @property
    def steps(self) -> list[int]:
        """The steps that are saved, oldest first."""
        return sorted(self._steps)

    @property
    def good_steps(self) -> list[int]:
        """Those of them that this process has written, or read and found whole."""
        return sorted(self._known)

    def is_best(self, elbo: float | None) -> bool:
        """Whether the best is kept, and this is better."""
        best = self._best if self._save is None else self._save.best
        return (
            self._keeps_best
            and elbo is not None
            and math.isfinite(elbo)
            and (best is None or elbo > best[0])
        )

    def save(self, state: State, *, elbo: float | None = None, block: Totals | None = None) -> None:
        """Starts a save and returns while it is written; the save before it is finished first. The
        state may be donated then.

        Args:
          state: of a run.
          elbo: of an evaluation of it.
          block: the sums of the block that the state is in, where that is not over.

        Raises:
          UserError: this save or the one before it failed, as on a full disk; what had been saved
            before is still there.
        """
        self.wait()
        step = int(state.step)
        leaves = to_leaves(state)
        if self._holds(step, leaves):
            self._add(step, elbo, is_over=block is None)
            return
        beside: dict[str, Any] = {CHECKSUM: checksum(leaves | _block_leaves(block))}
        if elbo is not None:
            beside[ELBO] = elbo
        if block is not None:
            beside[BLOCK] = as_numbers(block)
        self._start(step, leaves, beside)

    def wait(self) -> None:
        """Returns when the last save is on disk, and what it makes superfluous is removed.

        Raises:
          UserError: it could not be written; what had been saved before is still there.
        """
        save = self._save
        self._save = None
        if save is None:
            return
        try:
            with heartbeat.phase(f"writing the checkpoint of step {save.step:,}"):
                save.response.result()
            if processes.is_first():
                step_folders.settle(self.folder, save.step)
        except Exception as error:
            raise self._failed(save.step, error) from None
        self._steps.add(save.step)
        self._known[save.step] = save.beside
        self._damaged.discard(save.step)
        self._best = save.best
        self._last = save.step
        self.remove_old()

    def check(self) -> None:
        """Raises UserError if the save that is under way has failed by now; does not wait for
        it.
        """
        if self._save is None:
            return
        try:
            self._save.response.result(timeout=0)
        except TimeoutError:
            return
        except Exception:  # the same error again, as a sentence
            pass
        self.wait()

    def remove_old(self) -> None:
        """Removes what is neither one of the last few up to the step just saved, nor the best, nor
        asked for.

        Those of later steps stay: a run that went back, since they were damaged or since others had
        not got as far, comes to them again.

        Raises:
          UserError: the folder does not let it.
        """
        saved = self._last
        kept = {step for step in self._steps if step > saved}
        kept.update(sorted(self._steps - kept)[-self._keep :])
        kept.update(self._also_keeps())
        if self._best is not None:
            kept.add(self._best[1])
        superfluous = sorted(self._steps - kept)
        if saved < 0 or not superfluous:
            return
        try:
            if processes.is_first():
                step_folders.to_disk(self.folder / str(saved))
                for step in superfluous:
                    step_folders.remove(self.folder, step)
        except OSError as error:
            raise self._failed(saved, error) from None
        for step in superfluous:
            self._steps.discard(step)
            self._known.pop(step, None)

    def restore_latest(self, like: State) -> State | None:
        """The newest good checkpoint, every bad one before it named on stderr; None where there is
        none at all.

        Raises:
          UserError: there are checkpoints and all are damaged.
        """
        self._settled()
        steps = self.steps
        for step in reversed(steps):
            try:
                return self._restore(step, like)
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)
                self._damaged.add(step)
                self._best = self._find_best() if self._keeps_best else None
        if steps:
            raise UserError(
                f"no checkpoint in {self.folder} can be read (steps {', '.join(map(str, steps))}); "
                "start again with --overwrite, or restore the folder from a copy."
            )
        return None

    def restore(self, which: str, like: State) -> State | None:
        """One checkpoint by name: `latest` (the newest good one), `best`, or a step.

        Raises:
          UserError: it is not there, or damaged.
        """
        if which == "latest":
            return self.restore_latest(like)
        self._settled()
        there = f"{self.folder} has those of the steps {', '.join(map(str, self.steps)) or 'none'}"
        if which == "best":
            if (best := self._find_best()) is None:
                raise UserError(
                    "--checkpoint=best: none has an ELBO saved with it; train with "
                    f"--config.train.keep_best; {there}."
                )
            return self._restore(best[1], like)
        if not which.isdecimal() or int(which) not in self.steps:
            raise UserError(
                f"--checkpoint={which} is none of latest, best and the steps that are kept; "
                f"{there}."
            )
        return self._restore(int(which), like)

    # --- steps of the above

    def _open(self, read_only: bool) -> list[int]:
        """The steps that are there, once what an earlier process left half done is finished."""
        try:
            if not read_only:
                step_folders.recover(self.folder)
            files.require(self.folder, files.FOLDER)
            return step_folders.steps_in(self.folder)
        except OSError as error:  # a file or a link in its place, no rights to it
            raise UserError(
                f"the checkpoints in {self.folder} cannot be opened ({reason(error)})."
            ) from None

    def _settled(self) -> None:
        """Waits until the first process has done what `wait` left to it. Collective."""
        self.wait()
        processes.from_first(lambda: None)

    def _holds(self, step: int, leaves: dict[str, Any]) -> bool:
        """Whether the checkpoint of a step is known to be whole, and of this very state."""
        known = self._known.get(step)
        if known is None:
            return False
        block = from_numbers(known[BLOCK]) if BLOCK in known else None
        return known[CHECKSUM] == checksum(leaves | _block_leaves(block))

    def _start(self, step: int, leaves: dict[str, Any], beside: dict[str, Any]) -> None:
        """Starts to write a checkpoint, beside the one of the same step where there is one."""
        import orbax.checkpoint.experimental.v1 as ocp

        replaces = step in self._steps
        path = step_folders.path_to_write(self.folder, step, replaces=replaces)
        best = self._best_with(step, beside.get(ELBO))
        try:
            with heartbeat.phase(f"saving step {step:,}"), saving_context():
                response = ocp.save_async(path, leaves, custom_metadata=beside)
        except Exception as error:
            raise self._failed(step, error) from None
        self._save = _Save(step, response, beside, best)

    def _add(self, step: int, elbo: float | None, *, is_over: bool) -> None:
        """Adds what was not known of a checkpoint when it was written."""
        known = self._known[step]
        later = dict(known)
        if elbo is not None:
            later[ELBO] = elbo
        if is_over and BLOCK in known:
            later[IS_OVER] = True
        added = {name: later[name] for name in (ELBO, IS_OVER) if name in later}
        try:
            if later != known and processes.is_first():
                files.write_json(self.folder / str(step) / LATER, added)
        except OSError as error:
            raise self._failed(step, error) from None
        self._known[step] = later
        self._last = step
        self._best = self._best_with(step, elbo)
        self.remove_old()

    def _best_with(self, step: int, elbo: float | None) -> tuple[float, int] | None:
        """The best, once a step with this ELBO is among the checkpoints."""
        return (elbo, step) if elbo is not None and self.is_best(elbo) else self._best

    def _beside(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays of a step, and later.

        Raises:
          Exception: of many kinds, where it is damaged.
        """
        import orbax.checkpoint.experimental.v1 as ocp

        path = step_folders.path_of(self.folder, step)
        files.require_regular_tree(path)
        beside = dict(ocp.metadata(path).custom_metadata or {})
        if files.kind(path / LATER):
            beside |= json.loads(files.read_text(path / LATER))
        return beside

    def _find_best(self) -> tuple[float, int] | None:
        found = []
        for step in sorted(self._steps - self._damaged):
            try:
                elbo = float(self._beside(step)[ELBO])
            except Exception:  # it has none, or is damaged, which `restore` will say
                continue
            if math.isfinite(elbo):
                found.append((elbo, step))
        return max(found, key=lambda each: (each[0], -each[1]), default=None)

    def _failed(self, step: int, error: Exception) -> UserError:
        good = [each for each in self.steps if each != step or step in self._known]
        keeps = f"that of step {good[-1]} is kept" if good else "there is none before it"
        return UserError(
            f"the checkpoint of step {step} could not be written to {self.folder} "
            f"({reason(error)}); {keeps}. "
            "Make room, or the folder writable, and run the same command again to go on from there."
        )

    def _restore(self, step: int, like: State) -> State:
        import orbax.checkpoint.experimental.v1 as ocp

        leaves = to_leaves(like)
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in leaves.items()
        }
        where = step_folders.path_of(self.folder, step)
        try:
            files.require_regular_tree(where)
            found = read_once(where / "state")
            if found != {name: leaf.shape for name, leaf in leaves.items()}:
                raise ValueError("its arrays are not those of this model")
            leaves = ocp.load(where, abstract)
            saved = self._beside(step)
            block = from_numbers(saved[BLOCK]) if BLOCK in saved else None
        except Exception as error:  # Orbax and its storage raise many kinds, which mean the same
            raise UserError(
                f"the checkpoint {where} is damaged or of another model ({reason(error)})."
            ) from None
        if CHECKSUM not in saved:
            raise UserError(
                f"the checkpoint {where} is damaged: it has no checksum (one of an older version "
                "of this code has none)."
            )
        if saved[CHECKSUM] != checksum(leaves | _block_leaves(block)):
            raise UserError(
                f"the checkpoint {where} is damaged: its numbers are not those that were saved."
            )
        if int(leaves["step"]) != step:
            raise UserError(
                f"the checkpoint {where} is of step {int(leaves['step'])}: it has been moved."
            )
        self.saved_block = block
        self.block = None if saved.get(IS_OVER) else block
        self._known[step] = saved
        return from_leaves(leaves, like)


def common_steps(runs: Iterable[Checkpoints]) -> set[int]:
    """The steps of which all of some runs have a checkpoint."""
    steps = [set(each.steps) for each in runs]
    return set.intersection(*steps) if steps else set()


def newest_common_step(runs: Iterable[Checkpoints]) -> set[int]:
    """The newest step whose checkpoint all of some runs are known to have; empty where none is."""
    steps = [set(each.good_steps) for each in runs]
    common = set.intersection(*steps) if steps else set()
    return {max(common)} if common else set()


def wait_for_all(runs: Iterable[Checkpoints]) -> None:
    """Returns when the last saves of runs that go on together are on disk; only then is removed
    what they make superfluous.

    Raises:
      UserError: one could not be written.
    """
    waiting = list(runs)
    for each in waiting:
        each.wait()
    for each in waiting:
        each.remove_old()


def _block_leaves(block: Totals | None) -> dict[str, Any]:
    """What the checksum covers of it."""
    return (
        {}
        if block is None
        else {f"{BLOCK}.{name}": leaf for name, leaf in block_leaves(block).items()}
    )


def to_leaves(state: State) -> dict[str, Any]:
    """The state as one flat dict of arrays, typed keys as their data."""
    tree = state._replace(key=jax.random.key_data(state.key))
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def from_leaves(leaves: dict[str, Any], like: State) -> State:
    """The state again, in the structure of another."""
    tree = like._replace(key=jax.random.key_data(like.key))
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    ordered = [leaves[jax.tree_util.keystr(path, simple=True, separator=".")] for path, _ in paths]
    state = jax.tree.unflatten(structure, ordered)
    return state._replace(
        key=jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
    )
