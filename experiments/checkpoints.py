"""Checkpoints by Orbax: asynchronous, atomic, the last few and the best kept, each with a checksum
of its numbers.

A checkpoint holds the whole `vi_jax.State`; the positions in the data and in the record of metrics
follow from its step. What is restored is compared with the checksum that was saved beside it, so
that a damaged file is found and named instead of trained from. Of a run that was stopped inside a
block of steps, the sums of the block are beside them too. The arrays may lie on any mesh: every
process writes its own shards, and a state is restored to where the state given lies.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import heartbeat
from experiments.checksum import checksum
from experiments.cli import UserError
from experiments.parts import as_numbers, block_leaves, from_numbers
from experiments.storage import hush, read_once, reason
from vi_jax.training import State, Totals

# what is saved beside the arrays
CHECKSUM = "checksum"
ELBO = "elbo"
BLOCK = "block"


class Checkpoints:
    """The checkpoints of one run folder; use as a context manager, so that the last save is
    finished.

    Args:
      folder: of the checkpoints alone.
      keep: how many of the last ones are kept.
      keep_best: the one with the highest ELBO is kept too.
      read_only: nothing is removed, not even what a save that was killed has left: another process
        may be saving.
    """

    def __init__(
        self, folder: Path, *, keep: int, keep_best: bool = False, read_only: bool = False
    ) -> None:
        import orbax.checkpoint.experimental.v1 as ocp

        hush()
        self.folder = folder.resolve()
        self._keeps_best = keep_best
        self._kept = _Kept(keep)
        self._response = None
        self._saving = -1
        self._has_failed = False
        self.block: Totals | None = (
            None  # that the last state which was restored is in; None between two
        )
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        try:
            self._manager = ocp.training.Checkpointer(
                self.folder,
                preservation_policy=self._kept,
                save_decision_policy=always,
                cleanup_tmp_directories=not read_only,
            )
        except (
            Exception
        ) as error:  # a file in its place, no rights to it, a folder that Orbax cannot read
            raise UserError(
                f"the checkpoints in {self.folder} cannot be opened ({reason(error)})."
            ) from None
        self._kept.best = self._find_best() if keep_best else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        failure = None
        for finish in (self.wait, self._manager.close):
            try:
                finish()
            except Exception as problem:  # closing raises what a save has raised once more
                said = self._has_failed and not isinstance(problem, UserError)
                failure = failure or (
                    None
                    if said
                    else problem
                    if isinstance(problem, UserError)
                    else self._failed(problem)
                )
        if failure is not None and error is None:
            raise failure
        if failure is not None:
            print(f"warning: {failure}", file=sys.stderr)

    @property
    def steps(self) -> list[int]:
        """The steps that are saved, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._manager.checkpoints)

    def is_best(self, elbo: float | None) -> bool:
        """Whether the best is kept, and this is better."""
        return (
            self._keeps_best
            and elbo is not None
            and math.isfinite(elbo)
            and (self._kept.best is None or elbo > self._kept.best[0])
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
        leaves = to_leaves(state)
        self._saving = int(state.step)
        beside: dict[str, Any] = {CHECKSUM: checksum(leaves | _block_leaves(block))} | (
            {} if elbo is None else {ELBO: elbo}
        )
        beside |= {} if block is None else {BLOCK: as_numbers(block)}
        if elbo is not None and self.is_best(elbo):
            self._kept.best = elbo, self._saving
        try:
            with heartbeat.phase(f"saving step {self._saving:,}"):
                self._response = self._manager.save_async(
                    self._saving, leaves, custom_metadata=beside, force=True, overwrite=True
                )
        except Exception as error:
            raise self._failed(error) from None

    def wait(self) -> None:
        """Returns when the last save is on disk; raises UserError where that failed."""
        response = self._response
        self._response = None
        if response is not None:
            try:
                with heartbeat.phase(f"writing the checkpoint of step {self._saving:,}"):
                    response.result()
            except Exception as error:
                raise self._failed(error) from None

    def check(self) -> None:
        """Raises UserError if the save that is under way has failed by now; does not wait for
        it.
        """
        if self._response is not None and self._response._thread_runner.done():
            self.wait()

    def restore_latest(self, like: State) -> State | None:
        """The newest good checkpoint, every bad one before it named on stderr; None where there is
        none at all.

        Raises:
          UserError: there are checkpoints and all are damaged.
        """
        steps = self.steps
        for step in reversed(steps):
            try:
                return self._restore(step, like)
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)
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

    def _find_best(self) -> tuple[float, int] | None:
        found = []
        for step in self.steps:
            try:
                elbo = float((self._manager.metadata(step).custom_metadata or {})[ELBO])
            except Exception:  # it has none, or is damaged, which `restore` will say
                continue
            if math.isfinite(elbo):
                found.append((elbo, step))
        return max(found, key=lambda each: (each[0], -each[1]), default=None)

    def _failed(self, error: Exception) -> UserError:
        self._has_failed = True
        good = [step for step in self.steps if step != self._saving]
        keeps = f"that of step {good[-1]} is kept" if good else "there is none before it"
        return UserError(
            f"the checkpoint of step {self._saving} could not be written to {self.folder} "
            f"({reason(error)}); {keeps}. "
            "Make room, or the folder writable, and run the same command again to go on from there."
        )

    def _restore(self, step: int, like: State) -> State:
        leaves = to_leaves(like)
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in leaves.items()
        }
        where = self.folder / str(step)
        try:
            found = read_once(where / "state")
            if found != {name: leaf.shape for name, leaf in leaves.items()}:
                raise ValueError("its arrays are not those of this model")
            leaves = self._manager.load(step, abstract)
            saved = dict(self._manager.metadata(step).custom_metadata or {})
            block = from_numbers(saved[BLOCK]) if BLOCK in saved else None
        except (
            Exception
        ) as error:  # Orbax and its storage raise many kinds; each means the same to the user
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
        self.block = block
        return from_leaves(leaves, like)


class _Kept:
    """Which checkpoints Orbax keeps: the last few, and the best."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.best: tuple[float, int] | None = None  # its ELBO and its step

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer for each, as Orbax's PreservationPolicy has it."""
        steps = {
            *sorted(each.step for each in checkpoints)[-self._last :],
            *([self.best[1]] if self.best else []),
        }
        return [each.step in steps for each in checkpoints]


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
