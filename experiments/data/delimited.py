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

from experiments import files
from experiments.data.base import DataError, Raw, Source, require, require_file, say
from experiments.data.growing import Columns, Rows
from experiments.data.options import Options
from experiments.data.raw import RawTable, check_names

DELIMITERS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A")
HEAD_BYTES = 2**16  # read to see the first line
PART_BYTES = 2**21  # of a csv that are parsed at a time
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
            table = _read_table(path, layout, texts)
            break
        except _NotOfItsType as found:
            texts.add(found.number)
    if not len(table):
        raise DataError(f"{path} has no rows below its header; rows are wanted.")
    return table


def _read_table(path: Path, layout: _Layout, texts: set[int]) -> RawTable:
    """All of it, a few megabytes of the file at a time, so that little is there twice.

    Args:
      texts: numbers of columns that are known to be texts; more of them are added.

    Raises:
      _NotOfItsType: a value is not of its column's type.
    """
    types: dict[str, Any] = {}
    whole: Rows | Columns = Rows(0)
    with files.open_regular(path, follow=True) as file:
        size = os.fstat(file.fileno()).st_size
        num_read = 0
        for part in _parts(file):
            if not types:
                types = _types(part, layout, texts, path)
                whole = Columns(len(types), texts) if texts else Rows(len(types))
            table = _parse(part, layout, types, path, is_first=not num_read)
            num_read += len(part)
            whole.add(table, share=num_read / size)
    require("pyarrow", "pyarrow", "a csv file").default_memory_pool().release_unused()
    return whole.table(layout.names)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file, cut where lines end."""
    while read := file.read(PART_BYTES):
        part = read + file.readline()
        if not part.isspace():
            yield part


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
