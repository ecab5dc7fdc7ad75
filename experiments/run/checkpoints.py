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

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from experiments import terminal
from experiments.cli import UserError
from experiments.run import heartbeat, processes, saved, step_folders
from experiments.run.parts import as_numbers
from experiments.run.saved import BLOCK, CHECKSUM, ELBO, IS_OVER, checksum_of, to_leaves
from experiments.run.storage import hush, reason, saving_context
from vi_jax.training import State, Totals


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
        self._steps = set(
            processes.from_first(lambda: saved.open_steps(self.folder, read_only=read_only))
        )
        self._best = self._find_best() if keep_best else None  # its ELBO and its step

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.wait()
        except UserError as failure:
            if error is None:
                raise
            terminal.say(f"warning: {failure}")

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
        if saved.is_of(self._known.get(step), leaves):
            self._add(step, elbo, is_over=block is None)
            return
        beside: dict[str, Any] = {CHECKSUM: checksum_of(leaves, block)}
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
        """Raises UserError if the save under way has failed by now; does not wait for it."""
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
        """Removes all but the last few up to the step just saved, the best, and what is asked for.

        Those of later steps stay: a run that went back, since they were damaged or since others had
        not got as far, comes to them again.

        Raises:
          UserError: the folder does not let it.
        """
        last = self._last
        kept = set(self._also_keeps())
        if self._best is not None:
            kept.add(self._best[1])
        superfluous = _superfluous(self._steps, kept, last=last, num_kept=self._keep)
        if last < 0 or not superfluous:
            return
        try:
            if processes.is_first():
                step_folders.to_disk(self.folder / str(last))
                for step in superfluous:
                    step_folders.remove(self.folder, step)
        except OSError as error:
            raise self._failed(last, error) from None
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
                terminal.say(f"warning: {error}")
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
        best = self._find_best() if which == saved.BEST else None
        return self._restore(saved.step_named(which, self.folder, self.steps, best), like)

    # --- steps of the above

    def _settled(self) -> None:
        """Waits until the first process has done what `wait` left to it. Collective."""
        self.wait()
        processes.from_first(lambda: None)

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
        later = saved.with_later(known, elbo, is_over=is_over)
        try:
            if later != known and processes.is_first():
                saved.write_later(self.folder / str(step), later)
        except OSError as error:
            raise self._failed(step, error) from None
        self._known[step] = later
        self._last = step
        self._best = self._best_with(step, elbo)
        self.remove_old()

    def _best_with(self, step: int, elbo: float | None) -> tuple[float, int] | None:
        """The best, once a step with this ELBO is among the checkpoints."""
        return (elbo, step) if elbo is not None and self.is_best(elbo) else self._best

    def _failed(self, step: int, error: Exception) -> UserError:
        good = [each for each in self.steps if each != step or step in self._known]
        keeps = f"that of step {good[-1]} is kept" if good else "there is none before it"
        return UserError(
            f"the checkpoint of step {step} could not be written to {self.folder} "
            f"({reason(error)}); {keeps}. "
            "Make room, or the folder writable, and run the same command again to go on from there."
        )

    def _restore(self, step: int, like: State) -> State:
        """The state of a step, whose block is remembered; raises UserError where it is damaged."""
        found = saved.read(self.folder, step, like)
        self.saved_block = found.block
        self.block = None if found.beside.get(IS_OVER) else found.block
        self._known[step] = found.beside
        return found.state

    def _find_best(self) -> tuple[float, int] | None:
        return saved.find_best(self.folder, self._steps - self._damaged)


def _superfluous(steps: set[int], kept: set[int], *, last: int, num_kept: int) -> list[int]:
    """The steps that may go: neither later than the last save, nor one of the last few, nor kept
    for a reason of its own.
    """
    earlier = sorted(step for step in steps if step <= last)
    return sorted(set(earlier[:-num_kept]) - kept)
