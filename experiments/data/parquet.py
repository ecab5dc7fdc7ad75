"""Tables in Parquet files, `parquet:FILE`, read by Apache Arrow."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.base import DataError, Raw, Source, require, require_file
from experiments.data.raw import Coded, RawColumn, RawTable, check_names
from vi_jax import files


def open_source(file: str, data_dir: str) -> Source:
    """One split, `all`, of a Parquet file; raises DataError."""
    path = Path(data_dir) / file
    require_file(path, f"parquet:{file}")
    return Source(("all",), partial(_read, path), str(path))


def _read(path: Path, split: str) -> Raw:
    return Raw(_read_parquet(path), None, 0, str(path))


def _read_parquet(path: Path) -> RawTable:
    parquet = require("pyarrow.parquet", "pyarrow", f"{path}, a Parquet file,")
    try:
        with files.open_regular(path, follow=True) as file:
            opened = parquet.ParquetFile(file)
            check_names(tuple(map(str, opened.schema_arrow.names)), str(path))
            table = opened.read()
    except DataError:
        raise
    except Exception as error:  # Arrow's own, of damage in many ways
        if isinstance(error, OSError) and error.errno is not None:
            raise
        told = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as Parquet ({told}); write it again.") from error
    return _from_arrow(table, str(path))


def _from_arrow(table: Any, where: str) -> RawTable:
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(f"{where} has {table.num_rows} rows below its header; rows are wanted.")
    names = tuple(map(str, table.column_names))
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
