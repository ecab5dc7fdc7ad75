"""Columns of a table: their kinds, grouped so that a density is a few vectorised calls, and where
their parameters start.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vi_jax.models import likelihoods
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array

REAL = ("gaussian", "student_t", "log_normal")
COUNTS = (
    "poisson",
    "negative_binomial",
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
)
CLASSES = ("categorical", "ordinal")
KINDS = (*REAL, *COUNTS, "bernoulli", *CLASSES)


class Column(NamedTuple):
    """What one column of a table is, for `table_vae`; static and hashable."""

    # gaussian | student_t | log_normal | poisson | negative_binomial | zero_inflated_poisson |
    # zero_inflated_negative_binomial | bernoulli | categorical | ordinal
    kind: str
    num_levels: int = 1  # L of categorical and ordinal columns, whose values are 0..L - 1
    # gaussian, student_t: SD in the model's units, where the likelihood's scale starts;
    # log_normal: SD of log x, in units of which the encoder sees it and the decoder puts it out;
    # negative binomials: where the dispersion r starts
    scale: float = 1.0
    # where the decoder's outputs start: the mean (of log x / scale for log_normal); the log rate
    # (and the logit of pi, where zeros are inflated); the logits of classes (of a one); thresholds
    # of ordinal levels. () is 0, and evenly spread thresholds
    start: tuple[float, ...] | float = ()


class Group(NamedTuple):
    """The columns of one kind and one number of levels."""

    name: str  # of its own parameters
    kind: str
    num_levels: int
    columns: tuple[int, ...]  # their numbers in the table
    likelihood: Likelihood
    first: int  # of its outputs among the decoder's

    @property
    def size(self) -> int:
        """n, its number of columns."""
        return len(self.columns)

    @property
    def num_outputs(self) -> int:
        """Of the decoder, for all its columns."""
        return self.size * self.likelihood.num_outputs

    def outputs(self, row: Array) -> Array:
        """Its part [n, outputs of a column] of the decoder's outputs [M]."""
        part = row[self.first : self.first + self.num_outputs]
        return part.reshape(self.size, self.likelihood.num_outputs)


def require_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns.

    Raises:
      ValueError: there are none, or one is of no kind, or its numbers do not fit its kind.
    """
    if not columns:
        raise ValueError("table_vae needs at least one column; got none.")
    for number, column in enumerate(columns):
        _require_column(number, column)
    return tuple(columns)


def _require_column(number: int, column: Column) -> None:
    if column.kind not in KINDS:
        raise ValueError(
            f"column {number} is of kind {column.kind!r}; a kind is one of {', '.join(KINDS)}."
        )
    if column.kind in CLASSES and column.num_levels < 2:
        raise ValueError(
            f"column {number} is {column.kind} and needs num_levels of at least 2; got "
            f"{column.num_levels}."
        )
    if not (column.scale > 0 and math.isfinite(column.scale)):
        raise ValueError(f"column {number} needs a finite scale > 0; got {column.scale}.")
    wanted = _num_starts(column)
    if as_start(column) and len(as_start(column)) != wanted:
        raise ValueError(
            f"column {number} is {column.kind} and starts at {wanted} numbers; got "
            f"{len(as_start(column))}."
        )


def as_start(column: Column) -> tuple[float, ...]:
    """The column's start as a tuple, () where none is given."""
    start = column.start
    return tuple(start) if isinstance(start, tuple | list) else (float(start),)


def _num_starts(column: Column) -> int:
    if column.kind == "ordinal":
        return column.num_levels - 1
    if column.kind == "categorical":
        return column.num_levels
    return 2 if column.kind.startswith("zero_inflated") else 1


def groups_of(
    columns: Sequence[Column], *, min_scale: float, heteroscedastic: bool
) -> tuple[Group, ...]:
    """The groups of a table, in the order of their first columns."""
    found: dict[tuple[str, int], list[int]] = {}
    for number, column in enumerate(columns):
        levels = column.num_levels if column.kind in CLASSES else 1
        found.setdefault((column.kind, levels), []).append(number)
    groups = []
    first = 0
    for (kind, levels), index in found.items():
        members = [columns[number] for number in index]
        likelihood = _likelihood(kind, levels, members, min_scale, heteroscedastic)
        name = f"{kind}_{levels}" if kind in CLASSES else kind
        group = Group(name, kind, levels, tuple(index), likelihood, first)
        groups.append(group)
        first += group.num_outputs
    return tuple(groups)


def _likelihood(
    kind: str,
    num_levels: int,
    members: Sequence[Column],
    min_scale: float,
    heteroscedastic: bool,
) -> Likelihood:
    """Of the columns of a group, whose own parameters start where the columns say."""
    scale = np.array([column.scale for column in members])
    floor = min_scale * scale
    if kind == "gaussian" and heteroscedastic:
        return likelihoods.gaussian_heteroscedastic(scale, min_scale=floor)
    if kind == "gaussian":
        return likelihoods.gaussian_per_dimension(scale, min_scale=floor)
    if kind == "student_t":
        return likelihoods.student_t(scale, min_scale=floor, heteroscedastic=heteroscedastic)
    if kind == "log_normal":
        of_log = likelihoods.log_normal(scale, min_scale=floor, heteroscedastic=heteroscedastic)
        return _in_units(of_log, scale)
    if kind == "ordinal":
        return likelihoods.ordinal(num_levels, thresholds_init=_thresholds(num_levels, members))
    if kind == "categorical":
        return likelihoods.categorical(num_levels)
    make = getattr(likelihoods, kind)
    return make(scale) if "negative_binomial" in kind else make()


def _in_units(likelihood: Likelihood, scale: np.ndarray) -> Likelihood:
    """The likelihood whose first output is in units of a scale for each column [n]."""

    def make(params: Any, outputs: Array) -> Any:
        first = outputs[..., :1] * jnp.asarray(scale, outputs.dtype)[:, None]
        return likelihood.make(params, jnp.concatenate([first, outputs[..., 1:]], axis=-1))

    return likelihood._replace(make=make)


def _thresholds(num_levels: int, members: Sequence[Column]) -> np.ndarray:
    """Where ordinal columns start, [n, L - 1]."""
    shares = np.arange(1, num_levels) / num_levels
    even = tuple(np.log(shares) - np.log1p(-shares))
    return np.array([as_start(column) or even for column in members])


def output_bias_of(columns: Sequence[Column], groups: Sequence[Group]) -> np.ndarray:
    """Where the decoder's outputs start, [M]: those of a group together, column after column."""
    bias = [
        np.resize(_start_of_outputs(columns[number], group), group.likelihood.num_outputs)
        for group in groups
        for number in group.columns
    ]
    return np.concatenate(bias)


def _start_of_outputs(column: Column, group: Group) -> tuple[float, ...]:
    start = as_start(column)
    if column.kind == "ordinal" or not start:
        return (0.0,) * group.likelihood.num_outputs
    return start + (0.0,) * (group.likelihood.num_outputs - len(start))


def safe_values(columns: Sequence[Column]) -> np.ndarray:
    """A value of each column's support, [D]: what stands where none is observed."""
    return np.array([1.0 if column.kind == "log_normal" else 0.0 for column in columns])


def features(group: Group, scale: Array, values: Array, exposure: Array | None) -> Array:
    """What the encoder sees of a group's values [n], about standardised: [n, 1], or [n, L] of
    classes.
    """
    if group.kind in CLASSES:
        return jax.nn.one_hot(values.astype(jnp.int32), group.num_levels, dtype=values.dtype)
    seen = values
    if group.kind == "log_normal":
        seen = jnp.log(values) / scale
    elif group.kind in COUNTS:
        rates = values if exposure is None else values / exposure
        seen = jnp.log1p(rates)
    return seen[:, None]
