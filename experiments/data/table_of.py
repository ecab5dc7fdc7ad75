"""The data set of a table: its splits, its columns, its fingerprint and its report."""

import hashlib
from collections.abc import Mapping

import numpy as np

from experiments.data import report, tables
from experiments.data.base import Dataset, Raw
from experiments.data.columns import Table
from experiments.data.options import Options
from experiments.data.splits import Selection
from experiments.data.which import as_table


def table_of(
    stored: Mapping[str, Raw],
    selections: Mapping[str, Selection],
    rows: Mapping[str, np.ndarray],
    options: Options,
    *,
    name: str,
    source: str,
) -> Dataset:
    """The data set of stored tables.

    Args:
      stored: the splits of the source by name.
      selections: of each role.
      rows: of each role, in its split.
      options: how tables are read.
      name: config.data.name.
      source: one phrase, where the data came from.

    Raises:
      DataError: the columns are not what the fields say.
    """
    by_split = {split: as_table(raw) for split, raw in stored.items()}
    parts = {role: (by_split[selections[role].name], order) for role, order in rows.items()}
    labels: dict[str, np.ndarray | None] = {}
    for role, order in rows.items():
        beside = stored[selections[role].name].labels
        labels[role] = None if beside is None else beside[order]
    made = tables.make(parts, labels, options, name)
    return Dataset(
        made.splits["train"],
        made.splits.get("validation"),
        made.splits["test"],
        num_levels=0,
        name=name,
        source=source,
        fingerprint=fingerprint(made.table, made.hashes),
        table=made.table,
        report=report.of_table(name, made, selections),
    )


def fingerprint(table: Table, hashes: Mapping[str, np.ndarray]) -> str:
    """16 hex digits that change when the values, their order or their columns do."""
    digest = hashlib.sha256(table.to_json().encode())
    for role in sorted(hashes):
        digest.update(role.encode())
        digest.update(hashes[role].tobytes())
    return digest.hexdigest()[:16]
