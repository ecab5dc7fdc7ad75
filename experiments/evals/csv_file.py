"""CSV files of columns of arrays, whole or not at all."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from experiments import files
from experiments.run.live import Count

ROWS = 10_000  # at a time


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes columns [N] under their names, in UTF-8, a header first; nan is an empty field.

    Numbers have as many digits as tell them apart in their own type.

    Raises:
      ValueError: the columns are not of one length.
      OSError: as `files.write_whole` does.
    """
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    sizes = {array.shape for array in arrays.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        raise ValueError(f"write_csv needs columns of one length; got shapes {sorted(sizes)}.")
    (num,) = sizes.pop()

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(arrays)
        with Count(f"writing {path.name}", num, "rows") as count:
            for start in range(0, num, ROWS):
                some = [as_texts(array[start : start + ROWS]) for array in arrays.values()]
                writer.writerows(zip(*some, strict=True))
                count.add(len(some[0]))
        text.flush()
        text.detach()

    files.write_whole(path, write)


def as_texts(array: np.ndarray) -> list[str]:
    """Each value of an array [n] as text, empty where it is nan."""
    if array.dtype == object:
        return [str(value) for value in array]
    texts = array.astype(str).tolist()
    if not np.issubdtype(array.dtype, np.floating):
        return texts
    return ["" if text == "nan" else text for text in texts]
