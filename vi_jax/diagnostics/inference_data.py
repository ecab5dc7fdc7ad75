"""Samples as ArviZ holds them."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def inference_data(groups: Mapping[str, Mapping[str, Any]], attributes: Mapping[str, Any]) -> Any:
    """An ArviZ InferenceData of samples [S, ...] as one chain, by group and name.

    Raises:
      ImportError: there is no ArviZ.
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz.") from error
    chains: dict[str, Any] = {
        group: {name: np.asarray(value)[None] for name, value in sites.items()}
        for group, sites in groups.items()
    }
    try:
        inference = arviz.from_dict(**chains)
    except TypeError:  # ArviZ 1
        inference = arviz.from_dict(chains)
    inference.attrs.update(attributes)
    return inference
