"""Tables in text files: `csv:FILE`, read by Apache Arrow a few megabytes at a time.

A csv has a header (one of numbers alone is taken for a first row, aloud), quotes where a value
holds the delimiter, and the delimiter that its first line has: a comma, a semicolon or a tab. Empty
values, NA, NaN and null are missing. Whole numbers are read as float64, like all numbers.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from experiments import files
from experiments.data.base import DataError, Raw, Source, require, require_file, say
from experiments.data.options import Options
from experiments.data.raw import Coded, RawColumn, RawTable, check_names

DELIMITERS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A")
HEAD_BYTES = 2**16  # read to see the first line
PART_BYTES = 2**23  # of a csv that are parsed at a time
_BAD_COLUMN = re.compile(r"In CSV column #(\d+)")


def open_source(file: str, data_dir: str, options: Options) -> Source:
    """One split, `all`, of a csv file; raises DataError."""
    path = Path(data_dir) / file
    require_file(path, f"csv:{file}")
    return Source(("all",), partial(_read, path, options), str(path))


def _read(path: Path, options: Options, split: str) -> Raw:
    return Raw(_read_csv(path, options), None, 0, str(path))


class _Layout(NamedTuple):
    """How the lines of a csv file are read."""

    names: tuple[str, ...]
    delimiter: str
    num_skipped: int  # lines before the first row
    missing: tuple[str, ...]


class _NotOfItsType(Exception):
    """A value further down is not of the type that a column began with."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number  # of the column


def _read_csv(path: Path, options: Options) -> RawTable:
    """The columns of a csv file; what turns out to be text is read again as text."""
    require("pyarrow.csv", "pyarrow", f"{path}, a csv file,")
    layout = _head(path, options)
    texts: set[int] = set()
    while True:
        try:
            columns = _read_columns(path, layout, texts)
            break
        except _NotOfItsType as found:
            texts.add(found.number)
    if not len(columns[0]):
        raise DataError(f"{path} has no rows below its header; rows are wanted.")
    return RawTable(layout.names, columns)


def _read_columns(path: Path, layout: _Layout, texts: set[int]) -> tuple[RawColumn, ...]:
    """All columns, a few megabytes of the file at a time, so that little is there twice.

    Args:
      texts: numbers of columns that are known to be texts; more of them are added.

    Raises:
      _NotOfItsType: a value is not of its column's type.
    """
    types: dict[str, Any] = {}
    columns: list[_Numbers | _Texts] = []
    with files.open_regular(path, follow=True) as file:
        size = os.fstat(file.fileno()).st_size
        num_read = 0
        for part in _parts(file):
            if not types:
                types = _types(part, layout, texts, path)
                columns = [_Texts() if d in texts else _Numbers() for d in range(len(types))]
            table = _parse(part, layout, types, path, is_first=not num_read)
            num_read += len(part)
            for column, found in zip(columns, table.columns, strict=True):
                column.add(found, share=num_read / size)
    require("pyarrow", "pyarrow", "a csv file").default_memory_pool().release_unused()
    return tuple(column.whole() for column in columns)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file, cut where lines end."""
    rest = b""
    while read := file.read(PART_BYTES):
        read = rest + read
        end = read.rfind(b"\n") + 1
        rest = read[end:]
        if end:
            yield read[:end]
    if rest.strip():
        yield rest


def _types(part: bytes, layout: _Layout, texts: set[int], path: Path) -> dict[str, Any]:
    """The types of columns by their first values, whole numbers and none as float64."""
    arrow = require("pyarrow", "pyarrow", "a csv file")
    csv = require("pyarrow.csv", "pyarrow", "a csv file")
    options = (_read_options(layout, is_first=True), *_other_options(layout, {}))
    try:
        schema = csv.open_csv(arrow.BufferReader(part), *options).schema
    except arrow.ArrowInvalid as error:
        raise _unreadable(path, str(error)) from None
    types = {}
    for number, field in enumerate(schema):
        is_number = arrow.types.is_integer(field.type) or arrow.types.is_floating(field.type)
        if number not in texts and (is_number or arrow.types.is_null(field.type)):
            types[field.name] = arrow.float64()
        elif number not in texts and arrow.types.is_boolean(field.type):
            types[field.name] = arrow.bool_()
        else:
            texts.add(number)
            types[field.name] = arrow.dictionary(arrow.int32(), arrow.string())
    return types


def _parse(
    part: bytes, layout: _Layout, types: dict[str, Any], path: Path, *, is_first: bool
) -> Any:
    """Arrow's table of some lines.

    Raises:
      _NotOfItsType: a value is not of its column's type.
      DataError: Arrow cannot read the lines.
    """
    arrow = require("pyarrow", "pyarrow", "a csv file")
    csv = require("pyarrow.csv", "pyarrow", "a csv file")
    try:
        return csv.read_csv(
            arrow.BufferReader(part),
            _read_options(layout, is_first=is_first),
            *_other_options(layout, types),
        )
    except arrow.ArrowInvalid as error:
        message = str(error)
        found = _BAD_COLUMN.search(message)
        if found is None or arrow.types.is_dictionary(types[layout.names[int(found[1])]]):
            raise _unreadable(path, message) from None
        raise _NotOfItsType(int(found[1])) from None


def _unreadable(path: Path, message: str) -> DataError:
    return DataError(f"{path} cannot be read as a csv file: {' '.join(message.split())[:300]}.")


def _read_options(layout: _Layout, *, is_first: bool) -> Any:
    csv = require("pyarrow.csv", "pyarrow", "a csv file")
    skipped = layout.num_skipped if is_first else 0
    return csv.ReadOptions(column_names=list(layout.names), skip_rows=skipped)


def _other_options(layout: _Layout, types: dict[str, Any]) -> tuple[Any, Any]:
    csv = require("pyarrow.csv", "pyarrow", "a csv file")
    convert = csv.ConvertOptions(
        null_values=list(layout.missing), strings_can_be_null=True, column_types=types
    )
    return csv.ParseOptions(delimiter=layout.delimiter), convert


class _Numbers:
    """A column of numbers that grows: memory is asked for by what share of the file was read, and
    is only taken once it is written to.
    """

    def __init__(self) -> None:
        self._values = np.empty(0)
        self._num = 0

    def add(self, found: Any, *, share: float) -> None:
        """Appends a part; `share` of the file is read with it."""
        end = self._num + len(found)
        if end > len(self._values):
            grown = np.empty(max(int(1.02 * end / share), end))
            grown[: self._num] = self._values[: self._num]
            self._values = grown
        for chunk in found.chunks:
            if chunk.type == "bool":
                chunk = chunk.cast("int8").cast("float64")
            self._values[self._num : self._num + len(chunk)] = chunk.to_numpy(zero_copy_only=False)
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
            levels = chunk.dictionary.to_pylist()
            place = [self._place.setdefault(level, len(self._place)) for level in levels]
            recoded = np.array([*place, -1], np.int32)
            codes = chunk.indices.fill_null(len(levels)).to_numpy(zero_copy_only=False)
            self._codes.append(recoded[codes])

    def whole(self) -> Coded:
        """All of it."""
        return Coded(np.concatenate(self._codes), tuple(self._place))


def _head(path: Path, options: Options) -> _Layout:
    """What the first line says."""
    import csv

    with files.open_regular(path, follow=True) as file:
        head = file.read(HEAD_BYTES)
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            raise DataError(f"{path} is no text in UTF-8; save it so.") from None
        text = head[: error.start].decode("utf-8-sig")
    first = text.splitlines()[0] if text.strip() else ""
    if not first.strip():
        raise DataError(f"{path} begins with an empty line; a csv file begins with its header.")
    missing = (*MISSING, *options.sentinels)
    delimiter = max(DELIMITERS, key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter))
    if all(_is_number(cell) or cell.strip() in MISSING for cell in cells) and any(cells):
        say(f"{path} has no header, its first line is of numbers: columns are x0, x1, ...")
        return _Layout(tuple(f"x{d}" for d in range(len(cells))), delimiter, 0, missing)
    names = tuple(cell.strip() for cell in cells)
    check_names(names, str(path))
    return _Layout(names, delimiter, 1, missing)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
