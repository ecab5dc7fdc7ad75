"""What every source of images shares: the types, the one error, and small helpers. Nothing here is
slow to import.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import UserError
from experiments.data import ahead
from experiments.data.columns import Table
from experiments.data.lazy import OnDisk
from vi_jax import files

Images = np.ndarray | OnDisk


class DataError(UserError):
    """Data that cannot be had as asked, in one sentence: what came, what was wanted, what to do."""


class Factors(NamedTuple):
    """What images were made by, where that is known."""

    names: tuple[str, ...]  # of each factor, F
    is_ordered: tuple[bool, ...]  # whether the values of a factor are in an order, as sizes are
    values: np.ndarray  # the number of each value, ints [N, F]


class Split(NamedTuple):
    """Some examples: `x` are uint8 levels [N, *shape] of images, or of a table the dictionary
    `values` float32 [N, D] and `observed` bool [N, D] (`experiments.data.columns`), with `exposure`
    [N] and `covariates` [N, C] where asked for; of sequences the same with the axis of steps, [N,
    T, D], [N, T] and [N, T, C]; `labels` are ints [N] where the source has them.
    """

    x: Any
    labels: np.ndarray | None
    ids: np.ndarray | None = None  # of rows or sequences, [N], numbers or texts
    lengths: np.ndarray | None = None  # of sequences, steps before the padding, [N]
    factors: Factors | None = None  # of images that were made by some
    # of simulated sequences: what made them, such as `rates` [N, T, D] in x's units and `latents`
    truth: dict[str, np.ndarray] | None = None

    @property
    def num(self) -> int:
        """N."""
        return len(next(iter(self.arrays)))

    @property
    def nbytes(self) -> int:
        """Of all arrays of x."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def arrays(self) -> tuple[Images, ...]:
        """The arrays of x."""
        return tuple(self.x.values()) if isinstance(self.x, dict) else (self.x,)


class Dataset(NamedTuple):
    """What a run trains and is judged on; pixel values are 0..num_levels - 1 in every split."""

    train: Split
    validation: Split | None
    test: Split
    num_levels: int  # 17 for digits, 256 for 8-bit images, 2 for binary ones; 0 for a table
    name: str
    source: str  # one phrase: where the data came from
    fingerprint: str  # changes when the data do
    table: Table | None = None  # None: images; of sequences, of their steps
    report: tuple[str, ...] = ()  # what was found, and what is done to it, in lines

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of one image, the columns of a row, or the steps and columns of a sequence."""
        x = self.train.x
        return tuple((x["values"] if isinstance(x, dict) else x).shape[1:])

    @property
    def num_steps(self) -> int:
        """T of sequences, those of the longest; 0 of images and tables."""
        return 0 if self.table is None else self.table.num_steps


class Raw(NamedTuple):
    """One split of a source as it is stored, before shuffling, slicing and binarisation; of a
    table, x is a RawTable and num_levels 0; of sequences x may be a list of arrays [T_n, D].
    """

    x: Any
    labels: np.ndarray | None
    num_levels: int  # 0: not known yet, x is an array of any kind for `pixels.as_images`
    where: str = ""  # the file and the array, for messages
    names: tuple[str, ...] = ()  # of the columns of x [N, D], where they are given
    lengths: np.ndarray | None = None  # steps of sequences, [N], where they are given
    factors: Factors | None = None  # of images that were made by some
    truth: dict[str, np.ndarray] | None = None  # see `Split`, where it is known


class Source(NamedTuple):
    """An opened source: the split names it has, `read(split) -> Raw`, and where it is, in one
    phrase.
    """

    splits: tuple[str, ...]
    read: Callable[[str], Raw]
    where: str
    usual: tuple[str, str, str] | None = None  # train, validation and test, where none are given


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """' Did you mean ...?' when an option is near `word`, else an empty string."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def say(message: str) -> None:
    """Progress and notes go to stderr, so that stdout stays the results'."""
    ahead.say(f"data: {message}")


def require(module: str, package: str, purpose: str) -> ModuleType:
    """Imports `module` when it is needed; raises DataError naming the package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{purpose} needs {module}, which fails to import ({error}); pip install {package}."
        ) from error


def folder_of(data_dir: str, wanted: str) -> Path:
    """`data_dir` as a folder that exists; raises DataError (a mistyped folder is never created)."""
    folder = Path(data_dir)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"config.data.data_dir={data_dir!r} {problem}; give the folder {wanted}, or make it "
            "first."
        )
    return folder


def require_file(path: Path, name: str) -> None:
    """Raises DataError where config.data.name names no regular file."""
    if not path.is_file():
        raise DataError(
            f"config.data.name={name!r} names {path}, which is no file; give the path of one."
        )


def read_bytes(path: Path) -> bytes:
    """The file's bytes; raises DataError where it is no regular file, or may not be read."""
    try:
        return files.read_bytes(path, follow=True)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its rights."
        ) from error
