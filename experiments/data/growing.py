"""Tables that grow by Arrow's tables of parts of a file."""

from typing import Any

import numpy as np

from experiments.data.raw import Coded, RawTable, of_rows


def _with_room(values: np.ndarray, num: int, end: int, share: float) -> np.ndarray:
    """Values [N, ...] of which `num` are written, with room for `end`: memory is asked for by what
    share of the file was read, and is only taken once it is written to.
    """
    if end <= len(values):
        return values
    grown = np.empty((max(int(1.02 * end / share), end), *values.shape[1:]))
    grown[:num] = values[:num]
    return grown


class Rows:
    """The rows of a table of numbers alone, which grow."""

    def __init__(self, size: int) -> None:
        self._values = np.empty((0, size))
        self._num = 0

    def add(self, found: Any, *, share: float) -> None:
        """Appends Arrow's table of a part; `share` of the file is read with it."""
        end = self._num + len(found)
        self._values = _with_room(self._values, self._num, end, share)
        start = self._num
        for batch in found.to_batches():
            rows = _as_rows(batch)
            self._values[start : start + len(rows)] = rows
            start += len(rows)
        self._num = end

    def table(self, names: tuple[str, ...]) -> RawTable:
        """All of it."""
        return of_rows(self._values[: self._num], names)


class Columns:
    """A table of columns by themselves, some of them texts."""

    def __init__(self, size: int, texts: set[int]) -> None:
        self._columns = [_Texts() if d in texts else _Numbers() for d in range(size)]

    def add(self, found: Any, *, share: float) -> None:
        """Appends Arrow's table of a part; `share` of the file is read with it."""
        for column, own in zip(self._columns, found.columns, strict=True):
            column.add(own, share=share)

    def table(self, names: tuple[str, ...]) -> RawTable:
        """All of it."""
        return RawTable(names, tuple(column.whole() for column in self._columns))


def _as_numbers(chunk: Any) -> np.ndarray:
    """A chunk of Arrow's, nan where there is none."""
    if chunk.type == "bool":
        chunk = chunk.cast("int8").cast("float64")
    return chunk.to_numpy(zero_copy_only=False)


def _as_rows(batch: Any) -> np.ndarray:
    """Columns of Arrow's as float64 [n, D], nan where there is none: by one call, which lets go of
    the interpreter once and not for each column.
    """
    if any(field.type == "bool" for field in batch.schema):
        return np.stack([_as_numbers(column) for column in batch.columns], axis=1)
    return batch.to_tensor(null_to_nan=True).to_numpy()


class _Numbers:
    """A column of numbers that grows."""

    def __init__(self) -> None:
        self._values = np.empty(0)
        self._num = 0

    def add(self, found: Any, *, share: float) -> None:
        """Appends a part; `share` of the file is read with it."""
        end = self._num + len(found)
        self._values = _with_room(self._values, self._num, end, share)
        for chunk in found.chunks:
            self._values[self._num : self._num + len(chunk)] = _as_numbers(chunk)
            self._num += len(chunk)

    def whole(self) -> np.ndarray:
        """All of it, float64 [N]."""
        return self._values[: self._num]


class _Texts:
    """A column of texts that grows."""

    def __init__(self) -> None:
        self._codes: list[np.ndarray] = []
        self._place: dict[str, int] = {}

    def add(self, found: Any, *, share: float) -> None:
        """Appends a part."""
        del share
        for chunk in found.chunks:
            levels = [level.strip() for level in chunk.dictionary.to_pylist()]
            place = [self._place.setdefault(level, len(self._place)) for level in levels]
            recoded = np.array([*place, -1], np.int32)
            codes = chunk.indices.fill_null(len(levels)).to_numpy(zero_copy_only=False)
            self._codes.append(recoded[codes])

    def whole(self) -> Coded:
        """All of it."""
        return Coded(np.concatenate(self._codes), tuple(self._place))
