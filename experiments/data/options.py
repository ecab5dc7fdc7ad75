"""The fields of config.data that say how a table is read, checked before anything is."""

import fnmatch
import math
from typing import Any, NamedTuple

from experiments.data.base import DataError, did_you_mean
from experiments.data.columns import KINDS

DATA_KINDS = ("auto", "images", "table", "sequences")
POSITIVE = ("linear", "log")
DROP = "drop"  # in place of a kind: leave the column out
COLUMN_FIELDS = ("id_column", "label_column", "exposure", "sequence", "time")  # that name one
TOTAL = "total"  # in place of a column: the sum of a row's counts


class Options(NamedTuple):
    """How a table is read."""

    kind: str = "auto"  # of data: one of DATA_KINDS
    kinds: tuple[tuple[str, str], ...] = ()  # patterns of names, and the kind of such columns
    sentinels: tuple[str, ...] = ()  # values that stand for a missing one
    id_column: str = ""
    label_column: str = ""
    exposure: str = ""  # TOTAL, or a column
    covariates: tuple[str, ...] = ()
    positive: str = "linear"  # one of POSITIVE
    sequence: str = ""  # the column that says which sequence a row is a step of
    time: str = ""  # the column by which the steps of a sequence are ordered
    bin_ms: float = 0.0  # of spike times, the width of a bin; 0: the file says

    def kind_of(self, name: str) -> tuple[str, bool]:
        """The kind that a column was given ("" for none), and whether by its whole name; the last
        pattern counts.
        """
        found = ""
        for pattern, kind in self.kinds:
            if pattern == name:
                return kind, True
            if fnmatch.fnmatchcase(name, pattern):
                found = kind
        return found, False


def read(config_data: Any) -> Options:
    """The options in `config.data`; what is absent has its default.

    Raises:
      DataError: a field cannot be meant.
    """
    kind = _one_of(config_data, "kind", DATA_KINDS)
    positive = _one_of(config_data, "positive", POSITIVE)
    texts = {
        name: _text(config_data, name)
        for name in ("kinds", "sentinel", *COLUMN_FIELDS, "covariates")
    }
    _require_sequence(kind, texts)
    return Options(
        kind=kind,
        kinds=parse_kinds(texts["kinds"]),
        sentinels=_listed(texts["sentinel"]),
        id_column=texts["id_column"],
        label_column=texts["label_column"],
        exposure=texts["exposure"],
        covariates=_listed(texts["covariates"]),
        positive=positive,
        sequence=texts["sequence"],
        time=texts["time"],
        bin_ms=_milliseconds(config_data),
    )


def _require_sequence(kind: str, texts: dict[str, str]) -> None:
    """Raises DataError where the fields of sequences contradict each other."""
    if texts["sequence"] and kind not in ("auto", "sequences"):
        raise DataError(
            f"config.data.sequence={texts['sequence']!r} makes sequences of rows, and "
            f"config.data.kind is {kind!r}; set it to sequences, or leave the column out."
        )
    if texts["time"] and not texts["sequence"]:
        raise DataError(
            f"config.data.time={texts['time']!r} orders the steps of sequences; name the column "
            "that says which sequence a row is of, by config.data.sequence."
        )


def parse_kinds(text: str) -> tuple[tuple[str, str], ...]:
    """'age=poisson,gene_*=negative_binomial' -> pairs; a kind alone is that of all columns.

    A name may hold commas and '=' itself: what follows the last '=' before a comma is the kind.

    Raises:
      DataError: a part has no kind, or none that there is.
    """
    if text.strip() in (*KINDS, DROP):
        return (("*", text.strip()),)
    found = []
    waiting = ""
    for part in text.split(",") if text.strip() else ():
        waiting = f"{waiting},{part}" if waiting else part
        name, equals, kind = waiting.rpartition("=")
        if equals and kind.strip() in (*KINDS, DROP):
            found.append((name.strip(), kind.strip()))
            waiting = ""
    if waiting:
        kind = waiting.rpartition("=")[2].strip()
        raise DataError(
            f"config.data.kinds has {waiting.strip()!r}, where NAME=KIND was wanted; a kind is "
            f"{', '.join(KINDS)} or {DROP}.{did_you_mean(kind, [*KINDS, DROP])}"
        )
    return tuple(found)


def sentinel_numbers(options: Options) -> tuple[float, ...]:
    """The sentinels that are numbers."""
    return tuple(number for number in map(_number, options.sentinels) if number is not None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _text(config_data: Any, name: str) -> str:
    value = getattr(config_data, name, "")
    if not isinstance(value, str):
        raise DataError(
            f"config.data.{name}={value!r} is {type(value).__name__}, where text was wanted."
        )
    return value


def _milliseconds(config_data: Any) -> float:
    value = getattr(config_data, "bin_ms", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise DataError(
            f"config.data.bin_ms={value!r} is no width; give the milliseconds of a bin, such as "
            "10, or 0 where the file says it."
        )
    return float(value)


def _one_of(config_data: Any, name: str, values: tuple[str, ...]) -> str:
    value = getattr(config_data, name, values[0])
    if value not in values:
        hint = did_you_mean(str(value), values)
        raise DataError(f"config.data.{name}={value!r} is none of {', '.join(values)}.{hint}")
    return value
