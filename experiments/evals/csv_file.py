"""CSV files of columns of arrays, whole or not at all."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from experiments.run.live import Count
from vi_jax import files

ROWS = 10_000  # at a time


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes columns [N] under their names, in UTF-8, a header first; nan is an empty field.

    Numbers have as many digits as tell them apart in their own type.

    Raises:
      ValueError: the columns are not of one length.
      OSError: as `files.write_whole` does.
    """
    arrays = _alike(columns)
    num = len(next(iter(arrays.values())))
    with files.writing(path) as file, Count(f"writing {path.name}", num, "rows") as count:
        write = open_csv(file)
        for start in range(0, max(num, 1), ROWS):
            some = {name: array[start : start + ROWS] for name, array in arrays.items()}
            write(some)
            count.add(len(next(iter(some.values()))))


def open_csv(file: BinaryIO) -> Callable[[Mapping[str, Any]], None]:
    """A function that appends columns [n] of the same names each time, the header before the first
    of them; as `write_csv`.
    """
    has_header = False

    def write(columns: Mapping[str, Any]) -> None:
        nonlocal has_header
        arrays = _alike(columns)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if not has_header:
            writer.writerow(arrays)
            has_header = True
        writer.writerows(zip(*map(as_texts, arrays.values()), strict=True))
        file.write(text.getvalue().encode())

    return write


def _alike(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The columns as arrays; raises ValueError where they are not of one length."""
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    sizes = {array.shape for array in arrays.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        raise ValueError(f"write_csv needs columns of one length; got shapes {sorted(sizes)}.")
    return arrays


def as_texts(array: np.ndarray) -> list[str]:
    """Each value of an array [n] as text, empty where it is nan."""
    if array.dtype == object:
        return [str(value) for value in array]
    texts = array.astype(str).tolist()
    if not np.issubdtype(array.dtype, np.floating):
        return texts
    return ["" if text == "nan" else text for text in texts]
