"""ArviZ's InferenceData of samples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np


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
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz.") from error
    groups: dict[str, Any] = {"posterior": _as_chain(sites)}
    if log_likelihood:
        groups["log_likelihood"] = _as_chain(log_likelihood)
    attributes = {
        name: value
        for name, value in diagnostics._asdict().items()
        if isinstance(value, str | float | int)
    }
    try:
        inference = arviz.from_dict(**groups)
    except TypeError:  # ArviZ 1
        inference = arviz.from_dict(groups)
    inference.attrs.update({"method": method, **attributes})
    return inference


def _as_chain(sites: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[None] for name, value in sites.items()}
