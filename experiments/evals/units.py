"""log p(x) of a table in the units of its data and in standardised ones."""

from typing import Any

import numpy as np

from experiments.evals.base import Row, mean_stderr, said

DATA = "log_evidence_data_units"
STANDARD = "log_evidence_standardised"


def summarise(log_p: np.ndarray, table: Any, x: Any) -> dict[str, Any]:
    """log p(x) of rows with the Jacobian of what was done to the columns; empty where nothing was,
    as of counts and classes.

    Args:
      log_p: of the model's values, nats, [N].
      table: `experiments.data.columns.Table`.
      x: the rows, of which `observed` [N, D] says which columns there are.
    """
    observed = np.asarray(x["observed"])
    jacobian = table.log_jacobian(observed)
    standard = table.log_standard(observed)
    if not jacobian.any() and not standard.any():
        return {}
    in_data = log_p - jacobian
    return {DATA: mean_stderr(in_data), STANDARD: mean_stderr(in_data + standard)}


def rows(summary: dict[str, Any]) -> list[Row]:
    """The lines of the closing table."""
    if DATA not in summary:
        return []
    return [
        Row("  in the units of the data", said(summary[DATA])),
        Row("  in training SDs of the columns", said(summary[STANDARD])),
    ]
