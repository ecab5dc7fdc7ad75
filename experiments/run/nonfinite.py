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

from experiments import build
from experiments.cli import UserError
from experiments.data.columns import Table, from_json
from experiments.run.processes import is_first
from experiments.run.saved import from_leaves, to_leaves
from experiments.run.session import Built, examples
from vi_jax import files
from vi_jax.training import State, batch_rows, shuffle

# of a run; of the names of a state's arrays in a file
FOLDER = "nonfinite"
STATE = "state/"
BATCH = "batch/"  # of the leaves of a batch that is a dictionary
TABLE = "table"  # its columns, as JSON
CAUSES = (
    "Usual causes: a learning rate too high (halve it, or clip the gradient: "
    "--config.train.clip_norm=1), or data out of the "
    "likelihood's range."
)


class Moment(NamedTuple):
    """All that one step is a function of."""

    state: State  # before the step
    batch: Any  # leaves [B, ...], pixel values as they are stored, before they are binarised
    rows: np.ndarray  # int [B], which examples of the training split
    num_levels: int
    num_data: int  # N of the training split
    num_classes: int | None = None  # of its labels
    table: Table | None = None  # of a table


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
    built: Built,
) -> Path:
    """Writes the moment of a bad step, or of the step before it where that one's gradient was the
    first; returns the file.

    Args:
      workdir: of the run.
      bad_step: as a block names it.
      state_at: step -> the state before it; called once or twice, the second time for the next
        step.
      built: what the config of the run stands for.
    """
    num_data = built.dataset.train.num
    one = build.step(built.config, built.model, built.units, num_data=num_data, grad_norm_every=1)
    probe = jax.jit(one)
    for number in sorted({max(bad_step - 1, 0), bad_step}):
        moment = _moment(state_at(number), built)
        _, metrics = probe(moment.state, jax.tree.map(jnp.asarray, moment.batch))
        if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_norm"]):
            break
    path = workdir / FOLDER / f"step_{int(moment.state.step)}.npz"
    if is_first():
        write(path, moment)
    return path


def stopped(
    workdir: Path,
    bad_step: int,
    state_at: Callable[[int], State],
    saved: list[int],
    *,
    built: Built,
) -> UserError:
    """What to raise where a step was not finite, once its moment is recorded; arguments as of
    `record`, and the saved steps.
    """
    keeps = (
        f"the checkpoint of step {saved[-1]:,} is kept"
        if saved
        else "no checkpoint had been written"
    )
    limit = built.config.train.max_skipped
    after = (
        f", after {limit:,} that were left out" if built.config.train.on_nonfinite == "skip" else ""
    )
    try:
        path = record(workdir, bad_step, state_at, built=built)
        bad_step = int(path.stem.removeprefix("step_"))
        moment = f"its batch, key and state are in {path}"
        if built.dataset.num_levels or built.dataset.table is not None:  # no documents
            moment += f", and python -m experiments.replay --workdir={workdir} runs it alone"
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
    if isinstance(moment.batch, dict):
        arrays |= {f"{BATCH}{name}": np.asarray(leaf) for name, leaf in moment.batch.items()}
    else:
        arrays["batch"] = moment.batch
    arrays |= {"rows": moment.rows, "num_data": np.int64(moment.num_data)}
    arrays["num_classes"] = np.int64(moment.num_classes or 0)
    arrays[TABLE] = np.array("" if moment.table is None else moment.table.to_json())
    files.write_npz(path, arrays | {"num_levels": np.int64(moment.num_levels)})


def recorded(workdir: Path) -> list[int]:
    """The steps that a run has kept so."""
    found = (workdir / FOLDER).glob("step_*.npz")
    return sorted(
        int(path.stem.removeprefix("step_"))
        for path in found
        if path.stem.removeprefix("step_").isdecimal()
    )


class Batch(NamedTuple):
    """What a file of a moment says before there is a model."""

    examples: Any  # as `Moment.batch`
    num_levels: int
    num_data: int
    num_classes: int | None
    table: Table | None

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of one image, the columns of a row, or the steps and columns of a sequence."""
        if self.table is not None:
            return self.table.x_shape
        is_named = isinstance(self.examples, dict)
        images = self.examples["image"] if is_named else self.examples
        return tuple(images.shape[1:])


def read_batch(path: Path, *, with_labels: bool) -> Batch:
    """The batch of a moment, before there is a model.

    Raises:
      UserError: the file cannot be read, is damaged, or holds anything but plain arrays.
    """
    arrays = _read(path, ("num_levels", "num_data", "num_classes", TABLE))
    counts = [arrays[name] for name in ("num_levels", "num_data", "num_classes")]
    if any(count.shape for count in counts):
        raise _damaged(path, "numbers of examples")
    num_levels, num_data, num_classes = map(int, counts)
    table = _table(path, arrays[TABLE])
    if table is not None:
        return Batch(_rows_of_table(path, table), num_levels, num_data, num_classes or None, table)
    names = (f"{BATCH}image", f"{BATCH}label") if with_labels else ("batch",)
    arrays = _read(path, names)
    images = arrays[names[0]]
    if images.ndim < 2 or images.dtype not in (np.uint8, np.uint16):
        raise _damaged(path, "batch of images")
    examples: Any = images
    if with_labels:
        examples = {name.removeprefix(BATCH): arrays[name] for name in names}
    return Batch(examples, num_levels, num_data, num_classes or None, None)


def _table(path: Path, text: np.ndarray) -> Table | None:
    """The columns that a moment was written with; None of images."""
    if not str(text):
        return None
    try:
        return from_json(str(text))
    except (ValueError, TypeError, KeyError):
        raise _damaged(path, "columns of a table") from None


def _rows_of_table(path: Path, table: Table) -> dict[str, np.ndarray]:
    """The batch of a table, or of sequences, of the shapes that its columns have."""
    shapes = {"values": table.x_shape, "observed": table.x_shape}
    steps = table.x_shape[:-1]
    if table.has_exposure:
        shapes["exposure"] = steps
    if table.num_covariates:
        shapes["covariates"] = (*steps, table.num_covariates)
    names = tuple(f"{BATCH}{name}" for name in shapes)
    found = {name.removeprefix(BATCH): leaf for name, leaf in _read(path, names).items()}
    for name, leaf in found.items():
        dtype = bool if name == "observed" else np.float32
        if leaf.ndim < 1 or leaf.shape[1:] != shapes[name] or leaf.dtype != dtype:
            raise _damaged(path, f"{name} of a table")
    if len({len(leaf) for leaf in found.values()}) > 1:
        raise _damaged(path, "rows of one number")
    return found


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} holds no {what}; it is damaged, or was not written by experiments.train."
    )


def read(path: Path, like: State, batch: Batch) -> Moment:
    """A moment, in the structure of a state of its model.

    Raises:
      UserError: the file cannot be read, is damaged, of another model, or holds anything but plain
        arrays.
    """
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
    return Moment(from_leaves(leaves, like), batch.examples, arrays["rows"], *batch[1:])


def _moment(state: State, built: Built) -> Moment:
    """What the step of a state is a function of, brought to this host."""
    num = built.dataset.train.num
    data = examples(built.config, built.dataset.train)
    batch_size = built.config.train.batch_size
    leaves = {name: jnp.asarray(_to_host(leaf)) for name, leaf in to_leaves(state).items()}
    here = from_leaves(leaves, state)
    num_batches = -(-num // batch_size)
    epoch, position = divmod(int(here.step), num_batches)
    order = shuffle(here.key, jnp.int32(epoch), num)
    rows = np.asarray(batch_rows(order, position, batch_size))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf[rows]), data)
    labels = built.dataset.train.labels
    num_classes = None if labels is None else int(labels.max()) + 1
    dataset = built.dataset
    return Moment(here, batch, rows, dataset.num_levels, num, num_classes, dataset.table)


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
