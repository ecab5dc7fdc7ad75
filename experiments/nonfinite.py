"""A step whose loss or gradient is not finite: found, gone back to, and kept in a file from which
it can be run alone.

Everything is a function of (key, step), so the state before a bad step is had by running again from
the last checkpoint up to it. nonfinite/step_N.npz holds that state, the batch and its rows, as
plain arrays: nothing in it is pickled.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import build, files
from experiments.checkpoints import from_leaves, to_leaves
from experiments.cli import UserError
from experiments.data import Dataset
from experiments.processes import is_first
from vi_jax.training import State, batch_rows, shuffle

# of a run; of the names of a state's arrays in a file
FOLDER = "nonfinite"
STATE = "state/"
CAUSES = (
    "Usual causes: a learning rate too high (halve it, or clip the gradient: "
    "--config.optim.clip_norm=1), or data out of the "
    "likelihood's range."
)


class Moment(NamedTuple):
    """All that one step is a function of."""

    state: State  # before the step
    batch: np.ndarray  # [B, *shape], levels as they are stored, before they are binarised
    rows: np.ndarray  # int [B], which examples of the training split
    num_levels: int


@jax.jit
def is_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def first_bad_step(state: State, bad_step: int) -> int:
    """The step of a block that ended in `state` at which something was not finite, -1 if none.

    A gradient that is not finite shows in the norm where that is measured, else in the next step's
    loss, or, after the last step of a block, in what it has made of the state.
    """
    if bad_step >= 0 or bool(is_finite((state.params, state.opt_state))):
        return bad_step
    return int(state.step) - 1


def record(
    workdir: Path,
    bad_step: int,
    state_at: Callable[[int], State],
    *,
    config: Any,
    model: vi.Model,
    dataset: Dataset,
) -> Path:
    """Writes the moment of a bad step, or of the step before it where that one's gradient was the
    first; returns the file.

    Args:
      workdir: of the run.
      bad_step: as a block names it.
      state_at: step -> the state before it; called once or twice, the second time for the next
        step.
      config, model, dataset: of the run.
    """
    probe = jax.jit(build.step(config, model, dataset.num_levels, grad_norm_every=1))
    for number in sorted({max(bad_step - 1, 0), bad_step}):
        moment = _moment(state_at(number), dataset, config.train.batch_size)
        _, metrics = probe(moment.state, jnp.asarray(moment.batch))
        if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_norm"]):
            break
    path = workdir / FOLDER / f"step_{int(moment.state.step)}.npz"
    if is_first():
        write(path, moment)
    return path


def stopped(
    workdir: Path, bad_step: int, state_at: Callable[[int], State], saved: list[int], **run: Any
) -> UserError:
    """What to raise where a step was not finite, once its moment is recorded; arguments as of
    `record`, and the saved steps.
    """
    keeps = (
        f"the checkpoint of step {saved[-1]:,} is kept"
        if saved
        else "no checkpoint had been written"
    )
    limit = run["config"].train.max_skipped
    after = (
        f", after {limit:,} that were left out"
        if run["config"].train.on_nonfinite == "skip"
        else ""
    )
    try:
        path = record(workdir, bad_step, state_at, **run)
        bad_step = int(path.stem.removeprefix("step_"))
        moment = (
            f"its batch, key and state are in {path}, and python -m experiments.replay "
            f"--workdir={workdir} runs it alone"
        )
    except OSError as error:
        moment = f"its batch and state could not be kept ({error.strerror})"
    return UserError(
        f"the loss or its gradient was not finite at step {bad_step}; nothing was computed from "
        f"it{after}. In {workdir}, {keeps}; "
        f"{moment}. {CAUSES}"
    )


def write(path: Path, moment: Moment) -> None:
    """Writes a moment, whole or not at all."""
    files.make_folder(path.parent)
    arrays: dict[str, Any] = {
        f"{STATE}{name}": leaf for name, leaf in to_leaves(moment.state).items()
    }
    arrays |= {"batch": moment.batch, "rows": moment.rows}
    files.write_npz(path, arrays | {"num_levels": np.int64(moment.num_levels)})


def recorded(workdir: Path) -> list[int]:
    """The steps that a run has kept so."""
    found = (workdir / FOLDER).glob("step_*.npz")
    return sorted(
        int(path.stem.removeprefix("step_"))
        for path in found
        if path.stem.removeprefix("step_").isdecimal()
    )


def read_batch(path: Path) -> tuple[np.ndarray, int]:
    """The batch of a moment and its number of levels, before there is a model.

    Raises:
      UserError: the file cannot be read, is damaged, or holds anything but plain arrays.
    """
    arrays = _read(path, ("batch", "num_levels"))
    if (
        arrays["batch"].ndim < 2
        or arrays["batch"].dtype != np.uint8
        or arrays["num_levels"].shape != ()
    ):
        raise UserError(
            f"{path} holds no batch of images; it is damaged, or was not written by "
            "experiments.train."
        )
    return arrays["batch"], int(arrays["num_levels"])


def read(path: Path, like: State) -> Moment:
    """A moment, in the structure of a state of its model.

    Raises:
      UserError: the file cannot be read, is damaged, of another model, or holds anything but plain
        arrays.
    """
    batch, num_levels = read_batch(path)
    wanted = to_leaves(like)
    arrays = _read(path, ("rows", *(f"{STATE}{name}" for name in wanted)))
    for name, leaf in wanted.items():
        found = arrays[f"{STATE}{name}"]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise UserError(
                f"{path} is of another model: {name} is {found.dtype} {found.shape}, not "
                f"{leaf.dtype} {leaf.shape}."
            )
    leaves = {name: jnp.asarray(arrays[f"{STATE}{name}"]) for name in wanted}
    return Moment(from_leaves(leaves, like), batch, arrays["rows"], num_levels)


def _moment(state: State, dataset: Dataset, batch_size: int) -> Moment:
    """What the step of a state is a function of, brought to this host."""
    images = dataset.train.images
    leaves = {name: jnp.asarray(_to_host(leaf)) for name, leaf in to_leaves(state).items()}
    here = from_leaves(leaves, state)
    num_batches = -(-len(images) // batch_size)
    epoch, position = divmod(int(here.step), num_batches)
    rows = np.asarray(
        batch_rows(shuffle(here.key, jnp.int32(epoch), len(images)), position, batch_size)
    )
    return Moment(here, np.asarray(images[rows]), rows, dataset.num_levels)


def _to_host(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with files.read_npz(path) as opened:
            return {name: np.asarray(opened[name]) for name in names}
    except (
        Exception
    ) as error:  # a damaged file fails in many ways inside numpy and zipfile, all meaning the same
        reason = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        )
        raise UserError(
            f"{path} cannot be read ({reason}); it is damaged, or was not written by "
            "experiments.train."
        ) from None
