"""Fields that a record of an earlier version lacks, read as what was done then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cli import UserError
from experiments.rooms import is_of_documents

# came after format 2 of config.json: each with the value that does what was done before
ADDED = {
    "kind": "auto",
    "size": (),
    "fit": "crop",
    "mode": "auto",
    "alpha": "drop",
    "scale": "auto",
    "channels": "auto",
    "depth": "8bit",
    "kinds": "",
    "positive": "linear",
    "sentinel": "",
    "id_column": "",
    "label_column": "",
    "exposure": "",
    "covariates": "",
    "sequence": "",
    "time": "",
    "bin_ms": 0.0,
    "num_labels": 0,
    "label_seed": 0,
    "label_copies": 1,
}
SWEPT = {"coordinated_dropout": ()}  # likewise, of config.sweep
ARRAYS = ("npz:", "h5:")  # which may be images or a table: only config.data.kind says


def with_added(fields: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of a recorded training with those that it lacks, and their names.

    Args:
      fields: of the config, plain.
      path: its file, for messages.

    Raises:
      UserError: what one of them was then depends on the data, and has to be said.
    """
    data: Any = fields.get("data")
    is_training = "optim" in fields and "objective" in fields and not is_of_documents(fields)
    if not is_training or not isinstance(data, Mapping):
        return dict(fields), []
    missing = [name for name in ADDED if name not in data]
    name = str(data.get("name"))
    if "kind" in missing and (name.startswith(ARRAYS) or ".py:" in name):
        raise UserError(
            f'{path} lacks data.kind, which says whether {name} is images or a table; add "kind": '
            '"images" to its "data", as it was read then.'
        )
    added = {name: ADDED[name] for name in missing}
    names = [f"data.{name}" for name in missing]
    (fields, swept) = _with_swept(fields)
    names += swept
    return {**fields, "data": {**data, **added}}, names


def _with_swept(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The fields with those of config.sweep that they lack, and their names."""
    sweep: Any = fields.get("sweep")
    if not isinstance(sweep, Mapping):
        return fields, []
    missing = [f"sweep.{name}" for name in SWEPT if name not in sweep]
    return {**fields, "sweep": {**SWEPT, **sweep}}, missing


def said(names: list[str], path: Path) -> str:
    """A note of the fields that were added."""
    return (
        f"note: {path} is of a version before {', '.join(names)}; "
        f"{'they are' if len(names) > 1 else 'it is'} read as what was done then."
    )
