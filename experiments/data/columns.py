"""Columns of a table: what each is taken for, and how its values are those of a model.

A model sees `values`, float32 [N, D], and `observed`, bool [N, D]; values are 0 where nothing was
observed. What they hold, by kind:

    gaussian, student_t     (x - loc) / scale, mean and standard deviation of the training rows
    log_normal              x / exp(loc), with loc and scale the mean and SD of log x there
    counts                  the count
    bernoulli               0 or 1
    categorical, ordinal    the code 0..L-1 of a level

Standardised units are x in standard deviations of the training rows: of a Gaussian column the
model's own, of a log-normal one x / SD. Numpy only.
"""

import json
from typing import Any, NamedTuple

import numpy as np

REAL = ("gaussian", "student_t", "log_normal")
COUNTS = (
    "poisson",
    "negative_binomial",
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
)
# of these, what has the variance of a Poisson
EQUAL_VARIANCE = "poisson"
STANDARDISED = ("gaussian", "student_t")
LOG = "log_normal"
NOMINAL = "categorical"
CLASSES = ("bernoulli", "categorical", "ordinal")
ORDERED = ("ordinal",)  # classes that are in an order
KINDS = (*REAL, *COUNTS, *CLASSES)


class Column(NamedTuple):
    """One column of a table, and how it was read."""

    name: str
    kind: str  # a likelihood's name, see KINDS
    why: str  # a phrase
    levels: tuple[str, ...] = ()  # of classes, in the order of their codes
    loc: float = 0.0
    scale: float = 1.0
    sd: float = 1.0  # of the training rows, in the data's units
    mean: float = 0.0  # of them; of classes, of the codes

    @property
    def model_scale(self) -> float:
        """SD of the column in the model's units, of a log-normal one of the logarithm."""
        return self.scale if self.kind == LOG else 1.0


class Covariate(NamedTuple):
    """A column that a model is given and not asked to explain: levels one by one, or a real."""

    name: str
    levels: tuple[str, ...] = ()  # none: a real number
    loc: float = 0.0
    scale: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers it is."""
        return len(self.levels) or 1


class Table(NamedTuple):
    """The columns of a data set, and what else a row holds."""

    columns: tuple[Column, ...]
    exposure: str = ""  # "total", or the column that it is; "" for none
    exposure_mean: float = 1.0  # over the training rows
    covariates: tuple[Covariate, ...] = ()
    num_steps: int = 0  # T of sequences, whose steps are rows; 0: rows are examples

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.kind for column in self.columns)

    @property
    def has_exposure(self) -> bool:
        """Whether rows have an exposure."""
        return bool(self.exposure)

    @property
    def num_covariates(self) -> int:
        """Numbers that the covariates of a row are, C."""
        return sum(covariate.size for covariate in self.covariates)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of the values of a row, [D], or of a sequence, [T, D]."""
        of_row = (len(self.columns),)
        return (self.num_steps, *of_row) if self.num_steps else of_row

    def to_model(self, data: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Values [..., D] in the data's units, classes as codes -> as a model sees them, float32;
        0 where not observed.
        """
        columns = self.columns
        # each is exact where it does nothing: 1, 0 and 1
        factor = np.array([np.exp(-each.loc) if each.kind == LOG else 1.0 for each in columns])
        loc = np.array([each.loc if each.kind in STANDARDISED else 0.0 for each in columns])
        scale = np.array([each.scale if each.kind in STANDARDISED else 1.0 for each in columns])
        known = np.where(observed, data, 1.0)
        known *= factor
        known -= loc
        known /= scale
        if not observed.all():
            np.copyto(known, 0.0, where=~observed)
        return known.astype(np.float32)

    def to_data(self, values: np.ndarray) -> np.ndarray:
        """The model's values [..., D] in the data's units, float64; classes stay codes."""
        out = np.array(values, np.float64)
        for d, column in enumerate(self.columns):
            if column.kind == LOG:
                out[..., d] *= np.exp(column.loc)
            elif column.kind in REAL:
                out[..., d] = out[..., d] * column.scale + column.loc
        return out

    def log_jacobian(self, observed: np.ndarray) -> np.ndarray:
        """log |d x / d values| of the observed columns of rows [N, D], or sequences [N, T, D],
        nats, [N]: log p(x) in the data's units is log p(values) minus this.
        """
        logs = [
            column.loc if column.kind == LOG else np.log(column.scale) for column in self.columns
        ]
        return _sum_observed(logs, observed)

    def log_standard(self, observed: np.ndarray) -> np.ndarray:
        """log of the standard deviations of the observed real columns, nats, [N]: log p(x) in
        standardised units is log p(x) in the data's units plus this.
        """
        logs = [np.log(column.sd) if column.kind in REAL else 0.0 for column in self.columns]
        return _sum_observed(logs, observed)

    def to_json(self) -> str:
        """All of it as text; that of a table is as it was before there were sequences."""
        fields = self._asdict()
        if not self.num_steps:
            del fields["num_steps"]
        fields["columns"] = [column._asdict() for column in self.columns]
        fields["covariates"] = [covariate._asdict() for covariate in self.covariates]
        return json.dumps(fields)


def from_json(text: str) -> Table:
    """The table that `Table.to_json` wrote.

    Raises:
      ValueError, TypeError, KeyError: it is none.
    """
    fields: dict[str, Any] = json.loads(text)
    columns = tuple(_made(Column, each) for each in fields.pop("columns"))
    covariates = tuple(_made(Covariate, each) for each in fields.pop("covariates"))
    return Table(columns=columns, covariates=covariates, **fields)


def column_to_model(column: Column, data: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """One column [...] in the data's units -> as a model sees it, float32, 0 where not observed."""
    known = np.where(observed, np.asarray(data, np.float64), 1.0)
    if column.kind == LOG:
        known = known * np.exp(-column.loc)
    elif column.kind in REAL:
        known = (known - column.loc) / column.scale
    return np.where(observed, known, 0.0).astype(np.float32)


def _sum_observed(logs: list[float], observed: np.ndarray) -> np.ndarray:
    by_step = np.asarray(observed, np.float64) @ np.array(logs, np.float64)
    return by_step.reshape(len(by_step), -1).sum(1)


def _made(make: Any, fields: dict[str, Any]) -> Any:
    """A named tuple of its fields, lists as tuples."""
    plain = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return make(**plain)
