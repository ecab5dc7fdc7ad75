"""What is static of the model of a table: its columns, what the encoder sees, what the decoder puts
out.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from vi_jax.models import _columns
from vi_jax.models._columns import Column
from vi_jax.models._table_distribution import Layout, Row, TableDistribution, take
from vi_jax.types import Array, Params


class Table:
    """What is static of a table: the layout of its columns, features and outputs."""

    def __init__(
        self,
        columns: tuple[Column, ...],
        num_covariates: int,
        has_exposure: bool,
        min_scale: float,
        heteroscedastic: bool,
    ) -> None:
        self.columns = columns
        self.num_covariates = num_covariates
        self.has_exposure = has_exposure
        self.groups = _columns.groups_of(
            columns, min_scale=min_scale, heteroscedastic=heteroscedastic
        )
        self.num_outputs = sum(group.num_outputs for group in self.groups)
        widths = (
            group.size * (group.num_levels if group.kind in _columns.CLASSES else 1)
            for group in self.groups
        )
        self.num_features = sum(widths) + len(columns) + num_covariates + has_exposure
        self.layout = Layout(
            tuple(group.columns for group in self.groups),
            tuple(float(value) for value in _columns.safe_values(columns)),
        )

    def bias(self) -> np.ndarray:
        """Where the decoder's outputs start, [M, 1]."""
        return _columns.output_bias_of(self.columns, self.groups)[:, None]

    def checked(self, x: Row, steps: tuple[int, ...] = (), model: str = "table_vae") -> Row:
        """x, one example of a model, whose leaves begin with the axes `steps`.

        Raises:
          ValueError: it is not one example.
        """
        row = (*steps, len(self.columns))
        wanted: dict[str, tuple[int, ...]] = {"values": row, "observed": row}
        if self.has_exposure:
            wanted["exposure"] = steps
        if self.num_covariates:
            wanted["covariates"] = (*steps, self.num_covariates)
        given: Any = type(x).__name__
        if isinstance(x, Mapping):
            given = {name: jnp.shape(leaf) for name, leaf in x.items()}
            if "seen" in x:
                wanted["seen"] = row
        if given != wanted:
            raise ValueError(
                f"{model} expects one example, a dictionary of shapes {wanted}; got {given}. "
                "vmap over a batch."
            )
        return x

    def context(self, x: Row | None, model: str = "table_vae") -> dict[str, Array]:
        """The leaves that are given, not generated."""
        has = {"exposure": self.has_exposure, "covariates": self.num_covariates > 0}
        names = [name for name, is_there in has.items() if is_there]
        if names and x is None:
            raise ValueError(f"this {model} needs an example with {' and '.join(names)}.")
        return {name: x[name] for name in names}  # type: ignore[index]

    def features(self, x: Row, seen: Array) -> Array:
        """What the encoder sees of an example of which some entries are seen, [F]."""
        values = self.layout.filled(x["values"], seen)
        exposure = x["exposure"] if self.has_exposure else None
        parts = []
        for group in self.groups:
            (of_group, shown) = (take(row, group.columns) for row in (values, seen))
            scale = jnp.array(
                [self.columns[number].scale for number in group.columns], values.dtype
            )
            part = _columns.features(group, scale, of_group, exposure)
            parts.append(jnp.where(shown[:, None], part, 0.0).ravel())
        parts.append(seen.astype(values.dtype))
        if exposure is not None:
            parts.append(jnp.log(exposure)[None])
        if self.num_covariates:
            parts.append(x["covariates"].astype(values.dtype))
        return jnp.concatenate(parts)

    def distribution(
        self, own: Params, outputs: Array, context: dict[str, Array]
    ) -> TableDistribution:
        """p(x | z) from the decoder's outputs [M]."""
        made = []
        for group in self.groups:
            part = group.outputs(outputs)
            if self.has_exposure and group.kind in _columns.COUNTS:
                part = part.at[:, 0].add(jnp.log(context["exposure"]))
            made.append(group.likelihood.make(own[group.name], part))
        return TableDistribution(tuple(made), context, self.layout)
