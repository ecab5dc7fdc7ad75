"""Tables in text files: `csv:FILE`, read by Apache Arrow a few megabytes at a time.

A csv has a header (one of numbers alone is taken for a first row, aloud), quotes where a value
holds the delimiter or the end of a line, and the delimiter that its first line has: a comma, a
semicolon, a tab or a bar. Empty values, NA, NaN and null are missing. Whole numbers are read as
float64, like all numbers; columns that name rows or sequences, and whole numbers that float64 would
round, are texts.
"""

import csv
import io
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from experiments.data import ahead
from experiments.data.base import DataError, Raw, Source, require, require_file, say
from experiments.data.growing import Columns, Rows
from experiments.data.options import Options
from experiments.data.raw import RawTable, check_names
from experiments.data.texts import is_number
from vi_jax import files

DELIMITERS = (",", ";", "\t", "|")
QUOTE = b'"'
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A")
AROUND = (("", ""), (" ", ""), ("", " "), (" ", " "))  # blanks around a missing value
HEAD_BYTES = 2**16  # read to see the first line
PART_BYTES = 2**21  # of a csv that are parsed at a time
MOST_LINES = 10_000  # that a quoted value is looked for the end of
MAX_WHOLE = 2**53  # below which float64 tells whole numbers apart
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
    named = {options.id_column, options.sequence}
    texts = {number for number, name in enumerate(layout.names) if name in named - {""}}
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
            ahead.go_on()
            if not types:
                types = _types(part, layout, texts, path)
                whole = Columns(len(types), texts) if texts else Rows(len(types))
            table = _parse(part, layout, types, path, is_first=not num_read)
            num_read += len(part)
            whole.add(table, share=num_read / size)
    require("pyarrow", "pyarrow", "a csv file").default_memory_pool().release_unused()
    return whole.table(layout.names)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file, cut where lines end that end no quoted value."""
    while read := file.read(PART_BYTES):
        part = read + file.readline()
        lines = [part]
        is_open = part.count(QUOTE) % 2 == 1
        while is_open and len(lines) < MOST_LINES and (line := file.readline()):
            lines.append(line)
            is_open = line.count(QUOTE) % 2 == 0
        whole = part if is_open else b"".join(lines)
        if is_open:  # a stray quote, which ends nowhere
            file.seek(len(part) - sum(map(len, lines)), os.SEEK_CUR)
        if not whole.isspace():
            yield whole


def _types(part: bytes, layout: _Layout, texts: set[int], path: Path) -> dict[str, Any]:
    """The types of columns by their first values, whole numbers and none as float64, those that it
    would round as texts.
    """
    arrow = require("pyarrow", "pyarrow", "a csv file")
    arrow_csv = require("pyarrow.csv", "pyarrow", "a csv file")
    options = (_read_options(layout, is_first=True), *_other_options(layout, {}, part))
    try:
        first = arrow_csv.open_csv(arrow.BufferReader(part), *options).read_next_batch()
    except StopIteration:
        first = arrow.record_batch([arrow.nulls(0)] * len(layout.names), list(layout.names))
    except arrow.ArrowInvalid as error:
        raise _unreadable(path, str(error), layout) from None
    types = {}
    for number, field in enumerate(first.schema):
        is_whole = arrow.types.is_integer(field.type)
        is_number = is_whole or arrow.types.is_floating(field.type)
        if is_whole and _is_rounded(first.column(number)):
            is_number = False
        if number not in texts and (is_number or arrow.types.is_null(field.type)):
            types[field.name] = arrow.float64()
        elif number not in texts and arrow.types.is_boolean(field.type):
            types[field.name] = arrow.bool_()
        else:
            texts.add(number)
            types[field.name] = arrow.dictionary(arrow.int32(), arrow.string())
    return types


def _is_rounded(whole: Any) -> bool:
    """Whether float64 would round some of the whole numbers of a column, of codes or of times."""
    values = whole.to_numpy(zero_copy_only=False)  # floats, some nan, where some are missing
    return bool(np.any(values >= MAX_WHOLE) or np.any(values <= -MAX_WHOLE))


def _parse(
    part: bytes, layout: _Layout, types: dict[str, Any], path: Path, *, is_first: bool
) -> Any:
    """Arrow's table of some lines.

    Raises:
      _NotOfItsType: a value is not of its column's type.
      DataError: Arrow cannot read the lines.
    """
    arrow = require("pyarrow", "pyarrow", "a csv file")
    arrow_csv = require("pyarrow.csv", "pyarrow", "a csv file")
    try:
        return arrow_csv.read_csv(
            arrow.BufferReader(part),
            _read_options(layout, is_first=is_first),
            *_other_options(layout, types, part),
        )
    except arrow.ArrowInvalid as error:
        message = str(error)
        found = _BAD_COLUMN.search(message)
        if found is None or arrow.types.is_dictionary(types[layout.names[int(found[1])]]):
            raise _unreadable(path, message, layout) from None
        raise _NotOfItsType(int(found[1])) from None


def _unreadable(path: Path, message: str, layout: _Layout) -> DataError:
    told = f"{path} cannot be read as a csv file: {' '.join(message.split())[:300]}"
    if "UTF8" in message:
        return DataError(f"{told}; save it in UTF-8.")
    num = len(layout.names)
    shown = ", ".join(map(repr, layout.names[:3])) + (", ..." if num > 3 else "")
    return DataError(
        f"{told}. Its first line has {num:,} {'value' if num == 1 else 'values'} ({shown}), and "
        "every line needs as many: mend that line, or take out what is no row, such as remarks "
        "above the header."
    )


def _read_options(layout: _Layout, *, is_first: bool) -> Any:
    arrow_csv = require("pyarrow.csv", "pyarrow", "a csv file")
    skipped = layout.num_skipped if is_first else 0
    return arrow_csv.ReadOptions(column_names=list(layout.names), skip_rows=skipped)


def _other_options(layout: _Layout, types: dict[str, Any], part: bytes) -> tuple[Any, Any]:
    """How lines and values are read; only quoted values may hold the end of a line."""
    arrow_csv = require("pyarrow.csv", "pyarrow", "a csv file")
    convert = arrow_csv.ConvertOptions(
        null_values=list(layout.missing), strings_can_be_null=True, column_types=types
    )
    parse = arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=QUOTE in part)
    return parse, convert


def _head(path: Path, options: Options) -> _Layout:
    """What the first line says."""
    text = _first_text(path)
    first = text.splitlines()[0] if text.strip() else ""
    if not first.strip():
        raise DataError(f"{path} begins with an empty line; a csv file begins with its header.")
    spoken = (*MISSING, *options.sentinels)
    missing = tuple(dict.fromkeys(f"{a}{each}{b}" for a, b in AROUND for each in spoken))
    lines = {delimiter: _first_record(text, delimiter, path) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda each: len(lines[each].cells))
    (cells, num_lines) = lines[delimiter]
    if all(is_number(cell) or cell.strip() in MISSING for cell in cells) and any(cells):
        say(f"{path} has no header, its first line is of numbers: columns are x0, x1, ...")
        return _Layout(tuple(f"x{d}" for d in range(len(cells))), delimiter, 0, missing)
    names = tuple(" ".join(cell.split()) for cell in cells)
    check_names(names, str(path))
    return _Layout(names, delimiter, num_lines, missing)


def _first_text(path: Path) -> str:
    """The first line of a file at least, as text.

    Raises:
      DataError: it is not in UTF-8.
    """
    with files.open_regular(path, follow=True) as file:
        head = file.read(HEAD_BYTES) + file.readline()
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8; save it so.") from None


class _Record(NamedTuple):
    """The values of a line, which is several where one of them holds the end of a line."""

    cells: list[str]
    num_lines: int


def _first_record(text: str, delimiter: str, path: Path) -> _Record:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        cells = next(reader)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a csv file: {error} in its header.") from None
    return _Record(cells, reader.line_num)
