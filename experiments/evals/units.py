"""log p(x) of a table, or of sequences, in the units of its data and in standardised ones."""

from typing import Any

import numpy as np

from experiments.evals.base import Row, mean_stderr, said

DATA = "log_evidence_data_units"
STANDARD = "log_evidence_standardised"
PER_ENTRY = "log_evidence_per_entry"  # of sequences, in the units of the data
SAME = 1e-6  # relative: below it two means are one number


def summarise(log_p: np.ndarray, table: Any, x: Any) -> dict[str, Any]:
    """log p(x) of rows with the Jacobian of what was done to the columns; without it where nothing
    was, as of counts and classes. Of sequences the nats of an observed entry too.

    Args:
      log_p: of the model's values, nats, [N].
      table: `experiments.data.columns.Table`.
      x: the rows, of which `observed` [N, D], or [N, T, D], says which entries there are.
    """
    observed = np.asarray(x["observed"])
    jacobian = table.log_jacobian(observed)
    standard = table.log_standard(observed)
    in_data = log_p - jacobian
    found: dict[str, Any] = {}
    if jacobian.any() or standard.any():
        found = {DATA: mean_stderr(in_data), STANDARD: mean_stderr(in_data + standard)}
    if table.num_steps:
        found[PER_ENTRY] = per_entry(in_data, observed.reshape(len(observed), -1).sum(1))
    return found


def per_entry(log_p: np.ndarray, entries: np.ndarray) -> dict[str, float]:
    """log p(x) of all examples over their number of entries, with the standard error of that ratio
    over examples (the delta method).

    Args:
      log_p: nats, [N].
      entries: how many each has, [N].
    """
    mean = entries.mean(dtype=np.float64)
    ratio = log_p.mean(dtype=np.float64) / mean
    error = mean_stderr(log_p - ratio * entries)["stderr"] / mean
    return {"mean": float(ratio), "stderr": error}


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table; what the line of log p(x) says already is not repeated."""
    found = []
    if DATA in summary:
        above = summary["log_evidence"]["mean"]
        is_above = abs(summary[STANDARD]["mean"] - above) <= SAME * max(1.0, abs(above))
        note = "above: in training SDs of the columns" if is_above else ""
        found.append(Row("  in the units of the data", said(summary[DATA]), note))
        if not is_above:
            found.append(Row("  in training SDs of the columns", said(summary[STANDARD])))
    if PER_ENTRY in summary:
        found.append(Row("  of an observed entry", said(summary[PER_ENTRY])))
    return found
