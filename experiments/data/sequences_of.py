"""The data set of sequences: their steps as the rows of a table, padded to the longest."""

from collections.abc import Mapping

import numpy as np

from experiments.data import report, spike_findings, tables
from experiments.data.base import DataError, Dataset, Raw, Split
from experiments.data.columns import Table
from experiments.data.gather import as_sequences
from experiments.data.options import Options
from experiments.data.splits import Selection
from experiments.data.table_of import fingerprint

PADDED = {"values": 0.0, "observed": False, "exposure": 1.0, "covariates": 0.0}


def sequences_of(
    stored: Mapping[str, Raw],
    selections: Mapping[str, Selection],
    sequences: Mapping[str, np.ndarray],
    options: Options,
    *,
    name: str,
    source: str,
) -> Dataset:
    """The data set of stored sequences.

    Args:
      stored: the splits of the source by name, each x a RawSequences.
      selections: of each role.
      sequences: of each role, in its split.
      options: how tables are read.
      name: config.data.name.
      source: one phrase, where the data came from.

    Raises:
      DataError: the columns are not what the fields say.
    """
    # 1. their steps as the rows of a table
    found = {role: stored[selections[role].name].x for role in sequences}
    parts = {
        role: (found[role].table, found[role].steps_of(some)) for role, some in sequences.items()
    }
    made = tables.make(parts, dict.fromkeys(parts), options, name)
    lengths = {role: found[role].lengths[some] for role, some in sequences.items()}
    most = max(int(each.max()) for each in lengths.values())
    # 2. padded, with the labels and names of sequences
    splits = {}
    for role, some in sequences.items():
        beside = stored[selections[role].name].labels
        labels = None if beside is None else beside[some]
        of_steps = made.splits[role]
        if of_steps.labels is not None:
            labels = _labels_of_sequences(of_steps.labels, lengths[role], options, role)
        ids = found[role].ids
        x = {
            key: padded(leaf, lengths[role], most, PADDED[key]) for key, leaf in of_steps.x.items()
        }
        truth = _truth_of(stored[selections[role].name], some, made.table)
        own_ids = None if ids is None else ids[some]
        splits[role] = Split(x, labels, own_ids, lengths[role], truth=truth)
    # 3. what is said of them
    table = made.table._replace(num_steps=most)
    notes = found["train"].notes
    hashes = {role: report.row_hashes(split.x) for role, split in splits.items()}
    return Dataset(
        splits["train"],
        splits.get("validation"),
        splits["test"],
        num_levels=0,
        name=name,
        source=source,
        fingerprint=fingerprint(table, hashes),
        table=table,
        report=(
            *report.of_sequences(
                name, made._replace(notes=(*made.notes, *notes)), selections, hashes, lengths
            ),
            *spike_findings.lines_of(splits, made.table),
        ),
    )


def _truth_of(raw: Raw, some: np.ndarray, table: Table) -> dict[str, np.ndarray] | None:
    """What made some sequences; of rates those of the columns that were kept."""
    if raw.truth is None:
        return None
    truth = {name: np.asarray(array)[some] for name, array in raw.truth.items()}
    if "rates" in truth and raw.names:
        kept = [raw.names.index(column.name) for column in table.columns]
        truth["rates"] = truth["rates"][..., kept]
    return truth


def padded(steps: np.ndarray, lengths: np.ndarray, most: int, value: float) -> np.ndarray:
    """Steps [M, ...] of sequences one after the other -> [N, T, ...], a value in the padding."""
    out = np.full((len(lengths), most, *steps.shape[1:]), value, steps.dtype)
    out[np.arange(most) < lengths[:, None]] = steps
    return out


def _labels_of_sequences(
    labels: np.ndarray, lengths: np.ndarray, options: Options, role: str
) -> np.ndarray:
    """The class of each sequence, of those of its steps."""
    first = np.cumsum(lengths) - lengths
    of_sequence = labels[first]
    num = int(np.sum(np.repeat(of_sequence, lengths) != labels))
    if num:
        raise DataError(
            f"config.data.label_column={options.label_column!r} changes within a sequence, at "
            f"{num:,} of the {role} steps; a label is of a whole sequence."
        )
    return of_sequence


def read_stored(stored: Mapping[str, Raw], options: Options) -> dict[str, Raw]:
    """The same splits with each x a RawSequences; errors as of `as_sequences`."""
    return {split: raw._replace(x=as_sequences(raw, options)) for split, raw in stored.items()}
