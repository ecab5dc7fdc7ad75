"""Files of imputed entries: the table filled in as it came, the intervals, the draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import StoredTable
from experiments.data.columns import CLASSES, COUNTS, ORDERED, Column, Table
from experiments.data.raw import Coded, RawColumn
from experiments.evals.csv_file import as_texts, write_csv
from experiments.evals.data_columns import as_column
from experiments.run import heartbeat
from vi_jax import files

MAX_WHOLE = 2.0**53  # whole numbers that float64 tells apart


def write(
    out: Path, table: Table, stored: Mapping[str, StoredTable], rows: Any, entries: Any
) -> None:
    """Writes imputed.csv, intervals.csv and draws.npz.

    Args:
      out: a folder.
      table: the columns that the model is of.
      stored: the tables as they came, by split.
      rows: `encoding.Rows` of those splits, one after the other.
      entries: `imputing.Entries`, whose rows are among them.
    """
    order = stored_order(stored)
    line = np.empty_like(order)
    line[order] = np.arange(len(order))  # of each row in imputed.csv
    columns = filled_columns(table, stored, order, line[entries.row], entries)
    if rows.step is not None:
        columns = {**place_columns(rows, order, columns), **columns}
    write_csv(out / "imputed.csv", columns)
    write_csv(out / "intervals.csv", interval_columns(table, rows, line, entries))
    levels = {
        f"levels/{column.name}": np.array(column.levels)
        for column in table.columns
        if column.kind in CLASSES
    }
    arrays = {
        "draws": entries.draws.T,
        "row": line[entries.row],
        "column": entries.column,
        "names": np.array(table.names),
        **levels,
    }
    with heartbeat.phase("writing draws.npz"):
        files.write_npz(out / "draws.npz", arrays, compressed=True)


def stored_order(stored: Mapping[str, StoredTable]) -> np.ndarray:
    """The rows of some splits, one split after the other, in the order in which they are stored:
    the table of one stored split after that of another.
    """
    tables = list(dict.fromkeys(part.split for part in stored.values()))
    number = np.repeat(
        [tables.index(part.split) for part in stored.values()],
        [len(part.rows) for part in stored.values()],
    )
    place = np.concatenate([part.rows for part in stored.values()])
    return np.lexsort((place, number))


def filled_columns(
    table: Table,
    stored: Mapping[str, StoredTable],
    order: np.ndarray,
    lines: np.ndarray,
    entries: Any,
) -> dict[str, np.ndarray]:
    """All columns as they came, in the stored order, with the missing entries filled in.

    Args:
      lines: of the entries, in that order.
    """
    parts = list(stored.values())
    number = {name: d for d, name in enumerate(table.names)}
    found = {}
    for name in parts[0].table.names:
        at = parts[0].table.names.index(name)
        pieces = [_values(part.table.columns[at], part.rows) for part in parts]
        whole = np.concatenate(pieces)[order]
        if name in number:
            d = number[name]
            mine = entries.column == d
            whole = filled(whole, table.columns[d], lines[mine], best(table, d, entries)[mine])
        found[name] = as_whole_numbers(whole)
    return found


def place_columns(rows: Any, order: np.ndarray, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The step of each line, and where no column names its sequence the split and the place in it.

    Args:
      rows: `encoding.Rows` of the steps of sequences, one split after the other.
      order: of them, that of the lines.
      columns: that came.
    """
    found = {"step": rows.step}
    if rows.id is None:
        found = {"split": rows.split, "sequence": rows.row, **found}
    return {name: column[order] for name, column in found.items() if name not in columns}


def as_whole_numbers(column: np.ndarray) -> np.ndarray:
    """Floats that are all whole, as integers are read where some are missing, as integers again;
    every other column as it is.
    """
    if not np.issubdtype(column.dtype, np.floating):
        return column
    known = np.isfinite(column)
    values = np.where(known, column, 0.0)
    if np.any(values != np.rint(values)) or np.any(np.abs(values) > MAX_WHOLE):
        return column
    whole = values.astype(np.int64)
    return whole if known.all() else np.where(known, whole.astype(str), "")


def filled(whole: np.ndarray, column: Column, lines: np.ndarray, data: np.ndarray) -> np.ndarray:
    """A stored column with some entries filled in, `data` in its units or codes of classes."""
    if not len(lines):
        return whole
    values = as_column(column, data)
    if whole.dtype == bool:
        whole = whole.astype(np.int64)
    if np.issubdtype(whole.dtype, np.number):
        out = whole.astype(np.result_type(whole.dtype, np.float32))
    else:
        out = whole.astype(object)
    out[lines] = values.astype(out.dtype)
    return out


def best(table: Table, d: int, entries: Any) -> np.ndarray:
    """What entries are filled with if they are of a column: the mean, the most probable class."""
    return entries.code if table.columns[d].kind in CLASSES else entries.mean


def interval_columns(
    table: Table, rows: Any, line: np.ndarray, entries: Any
) -> dict[str, np.ndarray]:
    """A row for each imputed entry; what a kind of column does not have is empty."""
    num = len(entries.row)
    texts = {name: np.full(num, "", object) for name in ("filled", "low", "high")}
    numbers = {name: np.full(num, np.nan) for name in ("mean", "sd", "probability")}
    for d, column in enumerate(table.columns):
        mine = entries.column == d
        is_class = column.kind in CLASSES
        texts["filled"][mine] = as_texts(as_column(column, best(table, d, entries)[mine]))
        if not is_class or column.kind in ORDERED:
            texts["low"][mine] = as_texts(as_column(column, entries.low[mine]))
            texts["high"][mine] = as_texts(as_column(column, entries.high[mine]))
        if is_class:
            numbers["probability"][mine] = entries.probability[mine]
        else:
            numbers["mean"][mine] = _number(column, entries.mean[mine])
            numbers["sd"][mine] = entries.sd[mine].astype(np.float32)
    ids = {} if rows.id is None else {"id": rows.id[entries.row]}
    if rows.step is not None:
        ids = {"sequence": rows.row[entries.row], **ids, "step": rows.step[entries.row]}
    found = {
        "row": line[entries.row],
        **ids,
        "split": rows.split[entries.row],
        "column": np.array(table.names)[entries.column],
        "filled": texts["filled"],
        "mean": numbers["mean"],
        "sd": numbers["sd"].astype(np.float32),
        "low": texts["low"],
        "high": texts["high"],
        "probability": numbers["probability"].astype(np.float32),
        "effective_samples": entries.effective_samples.astype(np.float32),
        "k_hat": entries.k_hat.astype(np.float32),
    }
    order = np.lexsort((entries.column, found["row"]))
    return {name: column[order] for name, column in found.items()}


def _number(column: Column, data: np.ndarray) -> np.ndarray:
    """Means of a column; those of counts are no whole numbers."""
    return np.round(data, 4) if column.kind in COUNTS else as_column(column, data)


def _values(column: RawColumn, rows: np.ndarray) -> np.ndarray:
    """Some rows of a stored column, texts as texts."""
    if isinstance(column, Coded):
        return np.array([*column.levels, ""])[column.codes[rows]]  # the last one is that of -1
    return np.asarray(column[rows])
