"""Tables in files: `csv:FILE` and `parquet:FILE`, read by Apache Arrow, each column on its own.

A csv has a header (one of numbers alone is taken for a first row, aloud), quotes where a value
holds the delimiter, and the delimiter that its first line has: a comma, a semicolon or a tab. Empty
values, NA, NaN and null are missing. Whole numbers are read as float64, like all numbers.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.data.base import DataError, Raw, Source, require, say
from experiments.data.options import Options
from experiments.data.raw import Coded, RawColumn, RawTable, check_names

DELIMITERS = (",", ";", "\t")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "<NA>", "#N/A")
HEAD_BYTES = 2**16  # read to see the first line
_BAD_COLUMN = re.compile(r"In CSV column #(\d+)")


def open_csv(file: str, data_dir: str, options: Options) -> Source:
    """One split, `all`, of a csv file; raises DataError."""
    return _source("csv", file, data_dir, partial(_read_csv, options=options))


def open_parquet(file: str, data_dir: str) -> Source:
    """One split, `all`, of a Parquet file; raises DataError."""
    return _source("parquet", file, data_dir, _read_parquet)


def _source(prefix: str, file: str, data_dir: str, read: Any) -> Source:
    path = Path(data_dir) / file
    if not path.is_file():
        raise DataError(
            f"config.data.name='{prefix}:{file}' names {path}, which is no file; give the path of "
            f"a {prefix} file."
        )
    return Source(("all",), lambda split: Raw(read(path), None, 0, str(path)), str(path))


# --- csv


def _read_csv(path: Path, options: Options) -> RawTable:
    csv = require("pyarrow.csv", "pyarrow", f"{path}, a csv file,")
    (names, delimiter, has_header) = _head(path, options)
    types: dict[str, Any] = {}
    while True:
        try:
            table = _parse(csv, path, names, delimiter, has_header, types, options)
            break
        except DataError:
            raise
        except OSError:
            raise
        except Exception as error:  # Arrow's own, of a value that is not of its column's type
            types = _retyped(names, types, str(error), path)
    return _from_arrow(table, str(path))


def _parse(
    csv: Any,
    path: Path,
    names: tuple[str, ...],
    delimiter: str,
    has_header: bool,
    types: dict[str, Any],
    options: Options,
) -> Any:
    """The table of Arrow, with the types that the first block and `types` give."""
    read = csv.ReadOptions(column_names=list(names), skip_rows=int(has_header))
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=False)
    convert = csv.ConvertOptions(
        null_values=[*MISSING, *options.sentinels],
        strings_can_be_null=True,
        column_types=types,
    )
    with files.open_regular(path, follow=True) as file:
        reader = csv.open_csv(file, read, parse, convert)
        wider = _widened(reader.schema, types)
    if wider != types:
        types.update(wider)
        return _parse(csv, path, names, delimiter, has_header, types, options)
    with files.open_regular(path, follow=True) as file:
        return csv.read_csv(file, read, parse, convert)


def _widened(schema: Any, types: dict[str, Any]) -> dict[str, Any]:
    """The types of columns, whole numbers and empty columns as float64: what the first block holds
    says little of the rest.
    """
    arrow = require("pyarrow", "pyarrow", "a csv file")
    wider = dict(types)
    for field in schema:
        if field.name not in types:
            is_number = arrow.types.is_integer(field.type) or arrow.types.is_null(field.type)
            is_known = arrow.types.is_floating(field.type) or arrow.types.is_boolean(field.type)
            if is_number:
                wider[field.name] = arrow.float64()
            elif not is_known:
                wider[field.name] = arrow.string()
    return wider


def _retyped(
    names: tuple[str, ...], types: dict[str, Any], message: str, path: Path
) -> dict[str, Any]:
    """The types with the column that a message of Arrow complains of as texts.

    Raises:
      DataError: it complains of something else, such as a row that is too short.
    """
    arrow = require("pyarrow", "pyarrow", "a csv file")
    found = _BAD_COLUMN.search(message)
    if found is None or types.get(names[int(found[1])]) == arrow.string():
        raise DataError(f"{path} cannot be read as a csv file: {' '.join(message.split())[:300]}.")
    return {**types, names[int(found[1])]: arrow.string()}


def _head(path: Path, options: Options) -> tuple[tuple[str, ...], str, bool]:
    """(names of the columns, delimiter, whether the first line is a header)."""
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
    delimiter = max(DELIMITERS, key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter))
    if all(_is_number(cell) or cell.strip() in MISSING for cell in cells) and any(cells):
        say(f"{path} has no header, its first line is of numbers: columns are x0, x1, ...")
        return tuple(f"x{d}" for d in range(len(cells))), delimiter, False
    names = tuple(cell.strip() for cell in cells)
    check_names(names, str(path))
    return names, delimiter, True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- parquet


def _read_parquet(path: Path) -> RawTable:
    parquet = require("pyarrow.parquet", "pyarrow", f"{path}, a Parquet file,")
    try:
        with files.open_regular(path, follow=True) as file:
            table = parquet.read_table(file)
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again.") from error
    except Exception as error:  # Arrow's own, of damage in many ways
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again.") from error
    return _from_arrow(table, str(path))


# --- columns


def _from_arrow(table: Any, where: str) -> RawTable:
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{where} has {table.num_rows} rows below its header; rows are wanted.")
    names = tuple(map(str, table.column_names))
    check_names(names, where)
    columns = tuple(_column(table.column(i), names[i], where) for i in range(len(names)))
    return RawTable(names, columns)


def _column(column: Any, name: str, where: str) -> RawColumn:
    """One column of Arrow's as numbers, nan where missing, or as codes of texts."""
    arrow = require("pyarrow", "pyarrow", where)
    kind = column.type
    is_text = arrow.types.is_string(kind) or arrow.types.is_large_string(kind)
    if is_text or arrow.types.is_dictionary(kind):
        return _texts(column, name, where)
    if arrow.types.is_temporal(kind):
        return _texts(column.cast(arrow.string()), name, where)
    if arrow.types.is_decimal(kind):
        column = column.cast(arrow.float64())
    is_number = arrow.types.is_integer(kind) or arrow.types.is_floating(kind)
    if arrow.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (is_number or arrow.types.is_boolean(kind) or arrow.types.is_decimal(kind)):
        raise DataError(
            f"{where}: the column {name!r} is of {kind}; numbers, texts and yes or no are wanted: "
            "leave it out of the file."
        )
    if column.null_count:
        column = column.cast(arrow.float64())
    return column.to_numpy()


def _texts(column: Any, name: str, where: str) -> Coded:
    arrow = require("pyarrow", "pyarrow", where)
    if not arrow.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.combine_chunks()
    levels = tuple(str(level) for level in column.dictionary.to_pylist())
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Coded(codes.astype(np.int32), levels)
