"""ArviZ's InferenceData of samples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vi_jax.diagnostics.inference_data import inference_data


def as_inference(
    sites: dict[str, Any],
    method: str,
    diagnostics: Any,
    log_likelihood: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """An ArviZ InferenceData of samples [S, ...] as one chain, and of the log likelihood of each
    observed number [S, ...] where it is known.

    Raises:
      ImportError: there is no ArviZ.
    """
    groups: dict[str, Mapping[str, Any]] = {"posterior": sites}
    if log_likelihood:
        groups["log_likelihood"] = log_likelihood
    attributes = {
        name: value
        for name, value in diagnostics._asdict().items()
        if isinstance(value, str | float | int)
    }
    return inference_data(groups, {"method": method, **attributes})
