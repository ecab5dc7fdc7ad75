"""One checkpoint: the state as named arrays, and the numbers that were saved beside them.

Read with every check: a file that is missing, of another model or damaged is a UserError.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.cli import UserError
from experiments.run import step_folders
from experiments.run.checksum import checksum
from experiments.run.parts import block_leaves, from_numbers
from experiments.run.storage import read_once, reason
from vi_jax import files
from vi_jax.training import State, Totals

# what is saved beside the arrays
CHECKSUM = "checksum"
ELBO = "elbo"
BLOCK = "block"
IS_OVER = "block_is_over"
BEST = "best"  # names the checkpoint of the highest ELBO
LATER = "later.json"  # in the folder of a checkpoint: what was learnt once it was written


def open_steps(folder: Path, *, read_only: bool) -> list[int]:
    """The steps that are there, once what an earlier process left half done is finished.

    Args:
      folder: of checkpoints; made where it is not there.
      read_only: nothing is made, finished or removed.

    Raises:
      UserError: there is a file or a link in its place, or no right to it.
    """
    try:
        if not read_only:
            step_folders.recover(folder)
        files.require(folder, files.FOLDER)
        return step_folders.steps_in(folder)
    except OSError as error:
        raise UserError(
            f"the checkpoints in {folder} cannot be opened ({reason(error)})."
        ) from None


def step_named(which: str, folder: Path, steps: list[int], best: tuple[float, int] | None) -> int:
    """The step that `best` or a number names; `best` is what `find_best` found.

    Raises:
      UserError: there is no such checkpoint.
    """
    there = f"{folder} has those of the steps {', '.join(map(str, steps)) or 'none'}"
    if which == BEST:
        if best is None:
            raise UserError(
                f"--checkpoint={BEST}: none has an ELBO saved with it; train with "
                f"--config.train.keep_best; {there}."
            )
        return best[1]
    if not which.isdecimal() or int(which) not in steps:
        raise UserError(
            f"--checkpoint={which} is none of latest, {BEST} and the steps that are kept; {there}."
        )
    return int(which)


class Restored(NamedTuple):
    """A checkpoint that was read and found whole."""

    state: State
    beside: dict[str, Any]
    block: Totals | None  # the sums of the block that it was saved inside


def read(folder: Path, step: int, like: State) -> Restored:
    """The checkpoint of a step.

    Args:
      folder: of the checkpoints.
      like: a state of the same model, whose arrays lie where the restored ones are to.

    Raises:
      UserError: it is damaged, of another model, or of another step than its name says.
    """
    where = step_folders.path_of(folder, step)
    try:
        leaves = _read_leaves(where, to_leaves(like))
        beside = read_beside(folder, step)
        block = from_numbers(beside[BLOCK]) if BLOCK in beside else None
    except Exception as error:  # Orbax and its storage raise many kinds, which mean the same
        raise UserError(
            f"the checkpoint {where} is damaged or of another model ({reason(error)})."
        ) from None
    if CHECKSUM not in beside:
        raise UserError(
            f"the checkpoint {where} is damaged: it has no checksum (one of an older version "
            "of this code has none)."
        )
    if beside[CHECKSUM] != checksum_of(leaves, block):
        raise UserError(
            f"the checkpoint {where} is damaged: its numbers are not those that were saved."
        )
    if int(leaves["step"]) != step:
        raise UserError(
            f"the checkpoint {where} is of step {int(leaves['step'])}: it has been moved."
        )
    return Restored(from_leaves(leaves, like), beside, block)


def _read_leaves(where: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint, each to where the one of its name lies; raises many kinds."""
    import orbax.checkpoint.experimental.v1 as ocp

    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        for name, leaf in like.items()
    }
    files.require_regular_tree(where)
    found = read_once(where / "state")
    if found != {name: leaf.shape for name, leaf in like.items()}:
        raise ValueError("its arrays are not those of this model")
    return ocp.load(where, abstract)


def read_beside(folder: Path, step: int) -> dict[str, Any]:
    """What was saved beside the arrays of a step, and later.

    Raises:
      Exception: of many kinds, where it is damaged.
    """
    import orbax.checkpoint.experimental.v1 as ocp

    path = step_folders.path_of(folder, step)
    files.require_regular_tree(path)
    beside = dict(ocp.metadata(path).custom_metadata or {})
    if files.kind(path / LATER):
        beside |= json.loads(files.read_text(path / LATER))
    return beside


def with_later(beside: dict[str, Any], elbo: float | None, *, is_over: bool) -> dict[str, Any]:
    """What lies beside the arrays, with what was learnt once they were written."""
    later = dict(beside)
    if elbo is not None:
        later[ELBO] = elbo
    if is_over and BLOCK in beside:
        later[IS_OVER] = True
    return later


def write_later(path: Path, beside: dict[str, Any]) -> None:
    """Writes what was learnt of a checkpoint to a file of its own; raises OSError."""
    files.write_json(
        path / LATER, {name: beside[name] for name in (ELBO, IS_OVER) if name in beside}
    )


def find_best(folder: Path, steps: Iterable[int]) -> tuple[float, int] | None:
    """The highest ELBO that was saved with one of some steps, and the first step that has it."""
    found = []
    for step in sorted(steps):
        try:
            elbo = float(read_beside(folder, step)[ELBO])
        except Exception:  # it has none, or is damaged, which `read` will say
            continue
        if math.isfinite(elbo):
            found.append((elbo, step))
    return max(found, key=lambda each: (each[0], -each[1]), default=None)


def is_of(beside: dict[str, Any] | None, leaves: dict[str, Any]) -> bool:
    """Whether what was saved beside some arrays, None where they are not known, is of these."""
    if beside is None:
        return False
    block = from_numbers(beside[BLOCK]) if BLOCK in beside else None
    return beside[CHECKSUM] == checksum_of(leaves, block)


def checksum_of(leaves: dict[str, Any], block: Totals | None) -> str:
    """The checksum of a checkpoint: of its arrays, and of the block that it was saved inside."""
    if block is None:
        return checksum(leaves)
    inside = {f"{BLOCK}.{name}": leaf for name, leaf in block_leaves(block).items()}
    return checksum(leaves | inside)


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
