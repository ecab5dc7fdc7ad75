"""Checkpoints by Orbax: asynchronous, atomic, the last few kept, each with a digest of its numbers.

A checkpoint holds the whole `vi_jax.State` (the position in the data follows from its step). What is restored is compared with
the digest that was saved beside it, so that a damaged file is found and named instead of trained from.
"""

import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.cli import UserError
from vi_jax.training import State


class Checkpoints:
    """The checkpoints of one run folder; use as a context manager, so that the last save is finished."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        import orbax.checkpoint.experimental.v1 as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs each save and retry, and what it raises as well
        policy = ocp.training.preservation_policies.LatestN(keep)
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        self.folder = folder.resolve()
        self._manager = ocp.training.Checkpointer(
            self.folder, preservation_policy=policy, save_decision_policy=always, cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps that are saved, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._manager.checkpoints)

    def save(self, state: State) -> None:
        """Starts a save and returns; the save before it is finished first."""
        leaves = _to_leaves(state)
        host = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        self._manager.wait()
        try:
            self._manager.save_async(int(state.step), leaves, custom_metadata={"digest": _digest(host)}, force=True, overwrite=True)
        except OSError as error:
            raise UserError(f"the checkpoint of step {int(state.step)} could not be written to {self.folder}: {error}.") from None

    def wait(self) -> None:
        """Returns when the last save is on disk."""
        self._manager.wait()

    def restore_latest(self, like: State) -> State | None:
        """The newest good checkpoint, every bad one before it named on stderr; None where there is none at all.

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

    def _restore(self, step: int, like: State) -> State:
        leaves = _to_leaves(like)
        abstract = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for name, leaf in leaves.items()}
        where = self.folder / str(step)
        try:
            found = _read_once(where / "state")
            if found != {name: leaf.shape for name, leaf in leaves.items()}:
                raise ValueError("its arrays are not those of this model")
            leaves = self._manager.load(step, abstract)
            saved = self._manager.metadata(step).custom_metadata
        except Exception as error:  # Orbax and its storage raise many kinds; each means the same to the user
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise UserError(f"the checkpoint {where} is damaged or of another model ({reason}).") from None
        host = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        if not saved or saved.get("digest") != _digest(host):
            raise UserError(f"the checkpoint {where} is damaged: its numbers are not those that were saved.")
        return _from_leaves(leaves, like)


def _read_once(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's arrays; reads them one after the other, and raises at the first that is damaged.

    Orbax reads them at once, and of a damaged file its threads go on to print hundreds of tracebacks.
    """
    import tensorstore as ts

    if not (folder / "manifest.ocdbt").exists():
        raise FileNotFoundError(f"{folder / 'manifest.ocdbt'} is missing")
    store = {"driver": "ocdbt", "base": folder.as_uri() + "/"}
    keys = [key.decode().rpartition("/") for key in ts.KvStore.open(store).result().list().result()]
    arrays = {name: {"driver": "zarr3", "kvstore": {**store, "path": f"{name}/"}} for name, _, file in keys if file == "zarr.json"}
    return {name: ts.open(spec).result().read().result().shape for name, spec in arrays.items()}


def _to_leaves(state: State) -> dict[str, Any]:
    """The state as one flat dict of arrays, typed keys as their data."""
    tree = state._replace(key=jax.random.key_data(state.key))
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def _from_leaves(leaves: dict[str, Any], like: State) -> State:
    tree = like._replace(key=jax.random.key_data(like.key))
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    ordered = [leaves[jax.tree_util.keystr(path, simple=True, separator=".")] for path, _ in paths]
    state = jax.tree.unflatten(structure, ordered)
    return state._replace(key=jax.random.wrap_key_data(state.key))


def _digest(leaves: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(leaves):
        leaf = np.ascontiguousarray(leaves[name])
        total.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()
