"""The steps of sequences as the rows of a table."""

from typing import Any

import numpy as np

from experiments.evals.encoding import Rows


def observed_of(part: Any) -> np.ndarray:
    """Which entries are observed, of each row of a split, or of each step of its sequences, [M,
    D].
    """
    observed = part.x["observed"]
    if part.lengths is None:
        return observed
    return observed[np.arange(observed.shape[1]) < part.lengths[:, None]]


def by_step(rows: Rows, dataset: Any, names: tuple[str, ...]) -> Rows:
    """Rows of sequences as rows of their steps; of a table as they are."""
    if not dataset.num_steps:
        return rows
    lengths = np.concatenate([getattr(dataset, name).lengths for name in names])

    def repeated(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else np.repeat(column, lengths)

    return Rows(
        split=np.repeat(rows.split, lengths),
        row=np.repeat(rows.row, lengths),
        id=repeated(rows.id),
        label=repeated(rows.label),
        step=np.concatenate([np.arange(length) for length in lengths]),
    )
