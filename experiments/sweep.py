"""config.sweep: numbers that differ between the runs of one program, and the configs of the runs.

A number of the model can differ where the model's function says that it may be traced: its argument
is annotated `float | Array`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from experiments import rooms
from experiments.choices import NAME, find
from experiments.errors import UserError
from experiments.signatures import Signature

RATES = "learning_rates"
# the other fields of config.sweep, and the argument of the model that each is
OF_MODEL = {"coordinated_dropout": "hide"}
TRACED = "float | Array"  # annotation of an argument that may be traced


def is_several(config: Any) -> bool:
    """Whether a config is of several runs in one program."""
    return config.replicas > 1 or any(config.sweep[field] for field in config.sweep)


def of_model(config: Any) -> dict[str, tuple[float, ...]]:
    """The swept fields that are numbers of the model, and their values."""
    return {field: tuple(config.sweep[field]) for field in OF_MODEL if config.sweep[field]}


def validate(config: Any) -> None:
    """Raises UserError for a sweep that cannot be."""
    for field in (RATES, *OF_MODEL):
        values = config.sweep[field]
        if not all(map(_is_positive, values)) or len(set(values)) < len(values):
            raise UserError(
                f"config.sweep.{field} is {tuple(values)!r}; it has to be different numbers above "
                "0, such as (1e-3,3e-3), or ()."
            )
    if is_several(config) and config.train.loop != "compiled":
        raise UserError(
            "config.replicas and config.sweep train in one program; they need "
            "config.train.loop=compiled."
        )
    for field in of_model(config):
        _require_number(config, field)
    if of_model(config) and not config.data.validation:
        names = " and ".join(f"config.sweep.{field}" for field in of_model(config))
        raise UserError(
            f"{names} is chosen by held-out bins of the validation split, and "
            "config.data.validation is empty; name one, such as "
            "--config.data.train='train[:90%]' --config.data.validation='train[90%:]'."
        )


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0.0 < value < float("inf")


def _require_number(config: Any, field: str) -> None:
    """Raises UserError where the model has no such number that may be traced."""
    argument = OF_MODEL[field]
    name = config.model[NAME]
    if _is_traced(find(rooms.MODEL, name, "config.model"), argument):
        return
    have = [
        each
        for each in rooms.MODEL.all_names()
        if _is_traced(find(rooms.MODEL, each, "config.model"), argument)
    ]
    raise UserError(
        f"config.sweep.{field} is {tuple(config.sweep[field])!r}; {name} has no number "
        f"{argument!r} that may differ between the runs of one program. Models that have: "
        f"{', '.join(have)}."
    )


def _is_traced(signature: Signature, argument: str) -> bool:
    parameter = signature.parameters.get(argument)
    return parameter is not None and parameter.annotation == TRACED


def count(config: Any) -> int:
    """How many runs a config is of."""
    num = config.replicas
    for field in (RATES, *OF_MODEL):
        num *= max(len(config.sweep[field]), 1)
    return num


def configs(config: Any) -> list[Any]:
    """The configs of the runs, each by itself: config.replicas seeds from config.seed on, at each
    combination of the values of config.sweep.
    """
    fields = [field for field in (RATES, *OF_MODEL) if config.sweep[field]]
    runs = []
    for values in itertools.product(*(config.sweep[field] for field in fields)):
        for number in range(config.replicas):
            runs.append(_one(config, number, dict(zip(fields, values, strict=True))))
    return runs


def _one(config: Any, number: int, values: Mapping[str, float]) -> Any:
    from experiments import build

    one = config.copy_and_resolve_references()
    with one.unlocked():
        one.replicas = 1
        one.seed = config.seed + number
        for field in one.sweep:
            one.sweep[field] = ()
        for field, value in values.items():
            if field == RATES:
                build.set_peak_rate(one, float(value))
            else:
                one.model[OF_MODEL[field]] = float(value)
    return one


def require_models(runs: list[Any], known: dict[str, Any]) -> None:
    """Raises UserError, in the model's own words, where it refuses a number of one of the runs."""
    from experiments import build

    for one in runs:
        build.model(one, known)


def numbers(config: Any, fields: Mapping[str, Any]) -> dict[str, float]:
    """What the model of one run has for swept fields, by the names of arguments."""
    return {OF_MODEL[field]: float(config.model[OF_MODEL[field]]) for field in fields}


def values(config: Any, fields: Mapping[str, Any]) -> dict[str, float]:
    """The same by the names of the fields."""
    return {field: float(config.model[OF_MODEL[field]]) for field in fields}
