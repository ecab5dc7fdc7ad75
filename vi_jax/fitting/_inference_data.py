"""ArviZ's InferenceData of samples."""

from collections.abc import Mapping
from typing import Any

from vi_jax.diagnostics.inference_data import inference_data


def as_inference(groups: Mapping[str, Mapping[str, Any]], method: str, diagnostics: Any) -> Any:
    """An ArviZ InferenceData of groups of samples [S, ...] as one chain.

    Raises:
      ImportError: there is no ArviZ.
    """
    return inference_data(groups, attributes_of(method, diagnostics))


def attributes_of(method: str, diagnostics: Any) -> dict[str, Any]:
    """The words and numbers of the diagnostics, by name."""
    attributes = {
        name: value
        for name, value in diagnostics._asdict().items()
        if isinstance(value, str | float | int)
    }
    return {"method": method, **attributes}
