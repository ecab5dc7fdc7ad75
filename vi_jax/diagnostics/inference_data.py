"""Samples as ArviZ and xarray hold them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

OBSERVED = "observed_data"  # the group that has no axes of chains and draws
Groups = Mapping[str, Mapping[str, Any]]


def inference_data(groups: Groups, attributes: Mapping[str, Any]) -> Any:
    """An ArviZ InferenceData of samples [S, ...] as one chain, by group and name.

    Raises:
      ImportError: there is no ArviZ.
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz.") from error
    chains: dict[str, Any] = {group: _as_chain(group, sites) for group, sites in groups.items()}
    try:
        inference = arviz.from_dict(**chains)
    except TypeError:  # ArviZ 1
        inference = arviz.from_dict(chains)
    inference.attrs.update(attributes)
    return inference


def data_tree(groups: Groups, attributes: Mapping[str, Any]) -> Any:
    """An xarray DataTree of samples [S, ...] as one chain, by group and name, with ArviZ's names of
    dimensions: chain, draw, NAME_dim_0, ...

    Raises:
      ImportError: there is no xarray.
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError("to_xarray needs xarray: pip install xarray.") from error
    datasets = {}
    for group, sites in groups.items():
        lead = () if group == OBSERVED else ("chain", "draw")
        variables = {
            name: (_dimensions(name, value.ndim, lead), value)
            for name, value in _as_chain(group, sites).items()
        }
        coordinates = {name: np.arange(size) for name, size in _sizes(variables.values()).items()}
        datasets[group] = xarray.Dataset(variables, coordinates)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs.update(attributes)
    return tree


def _as_chain(group: str, sites: Mapping[str, Any]) -> dict[str, np.ndarray]:
    values = {name: np.asarray(value) for name, value in sites.items()}
    if group == OBSERVED:
        return values
    return {name: value[None] for name, value in values.items()}


def _dimensions(name: str, num: int, lead: tuple[str, ...]) -> tuple[str, ...]:
    return (*lead, *(f"{name}_dim_{axis}" for axis in range(num - len(lead))))


def _sizes(variables: Any) -> dict[str, int]:
    return {
        dimension: size
        for dimensions, value in variables
        for dimension, size in zip(dimensions, value.shape, strict=True)
    }
