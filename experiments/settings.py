"""What a config may say: its fields, their types and ranges, and the functions that it names;
checked before anything slow is imported.
"""

import sys
from collections.abc import Mapping
from typing import Any

from experiments import rooms, sweep
from experiments.choices import Room
from experiments.cli import MAX_COUNT, UserError, suggest
from experiments.overrides import flatten
from experiments.rooms import ROOMS

__all__ = ["CHOICES", "change", "flatten", "get", "validate"]

CHOICES = {
    "precision": ("float32", "bfloat16"),
    "prng": ("threefry2x32", "rbg", "unsafe_rbg"),
    "data.binarisation": ("dynamic", "static", "none"),
    "data.fit": ("crop", "pad", "stretch"),
    "data.mode": ("auto", "grey", "colour"),
    "data.channels": ("auto", "first", "last"),
    "data.depth": ("8bit", "full"),
    "train.on_nonfinite": ("stop", "skip"),
    "train.loop": ("compiled", "stepwise"),
    "eval.split": ("test", "validation"),
}
POSITIVE = (
    "replicas",
    "train.batch_size",
    "train.num_steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_skipped",
    "data.label_copies",
    "eval.batch_size",
    "eval.num_samples",
    "eval.num_importance_samples",
)
NOT_NEGATIVE = (
    "train.checkpoint_minutes",
    "train.clip_norm",
    "train.ema",
    "data.device_limit_mb",
    "data.num_labels",
    "eval.active_threshold",
)
SEEDS = ("seed", "data.shuffle_seed", "data.static_seed", "data.label_seed")
# what is known of the data and of the run when a model is built, for arguments that ask for it
FACTS = (
    *("dtype", "mean", "num_classes", "num_data", "num_levels", "output_bias", "rows"),
    *("total_steps", "x_shape"),
    *("num_labels", "label_copies"),  # of rows that have labels, where others lack them
    *("columns", "has_exposure", "num_covariates"),  # of tables
    "max_steps",  # of sequences
    *("background", "num_words"),  # of documents
)
ESTIMATOR = "objective.estimator"
AUTO = "auto"  # of it: the best one on a batch
# groups whose fields are the arguments of a function, and not ours
FUNCTIONS = {
    "model": rooms.MODEL,
    "objective": rooms.OBJECTIVE,
    "optim": rooms.OPTIMISER,
}


def validate(config: Any, choices: Mapping[str, Room] | None = None) -> None:
    """Raises UserError for the first thing in a config that cannot be meant; `choices` are the
    rooms of its functions, those of images, tables and sequences if not given.
    """
    from configs import base

    expected = base.get_config().to_dict()
    _validate_fields(config, expected)
    _validate_values(config)
    _validate_data(config)
    _validate_mesh(config)
    _validate_training(config)
    for field, room in (choices or FUNCTIONS).items():
        ROOMS.check(room, get(config, field), where=f"config.{field}", facts=FACTS)
    sweep.validate(config)


def leaves_estimator_open(config: Any) -> bool:
    """Whether the gradient estimator is to be chosen by measuring (`run.estimators`)."""
    value = config.objective.get("estimator")
    return value == AUTO or (hasattr(value, "get") and value.get("name") == AUTO)


def _validate_values(config: Any) -> None:
    """That fields have one of their values, or lie in their range."""
    for field, names in CHOICES.items():
        value = get(config, field)
        if value not in names:
            near = suggest(str(value), names)
            raise _wrong(field, config, f"it can be {', '.join(names)}{near}")
    for field in POSITIVE:
        if not get(config, field) > 0:
            raise _wrong(field, config, "it has to be greater than 0")
    for field in NOT_NEGATIVE:
        if not get(config, field) >= 0:
            raise _wrong(field, config, "it has to be at least 0")
    for field in (*POSITIVE, *NOT_NEGATIVE):
        if isinstance(get(config, field), int) and get(config, field) > MAX_COUNT:
            raise _wrong(field, config, f"it has to be at most {MAX_COUNT:,}")
    for field in SEEDS:
        if not 0 <= get(config, field) < 2**32:
            raise _wrong(field, config, "a seed has to be at least 0 and below 2^32")


def change(config: Any, fields: Mapping[str, Any]) -> None:
    """Sets dotted fields of a locked config, such as one that was read and is not validated yet.

    Raises:
      UserError: the config has no such field.
    """
    with config.unlocked():
        for field, value in fields.items():
            get(config, field)
            group, _, name = field.rpartition(".")
            get(config, group)[name] = value


def get(config: Any, field: str) -> Any:
    """The value of a dotted field.

    Raises:
      UserError: the config has no such field.
    """
    for part in field.split("."):
        try:
            config = config[part]
        except (KeyError, TypeError):
            raise UserError(
                f"the config has no field {field}; configs/base.py has all of them, with what "
                "they mean."
            ) from None
    return config


def _validate_fields(config: Any, expected: Mapping[str, Any], prefix: str = "") -> None:
    """That fields are those of configs/base.py, of their types; arguments of functions apart."""
    for name, default in expected.items():
        field = f"{prefix}{name}"
        value = _own(config, name, field)
        if field in FUNCTIONS:
            continue
        if isinstance(default, Mapping):
            if not hasattr(value, "items"):
                raise _bad(field, value, f"it is a group of fields: {', '.join(default)}")
            _validate_fields(value, default, f"{field}.")
        else:
            _validate_type(field, value, default)
    unknown = sorted(set(config) - set(expected))
    if unknown:
        near = suggest(unknown[0], sorted(expected))
        raise UserError(f"the config has a field {prefix}{unknown[0]} that no one reads{near}.")


def _own(config: Any, name: str, field: str) -> Any:
    if name not in config:
        raise UserError(
            f"the config has no field {field}; configs/base.py has all of them, with what they "
            "mean."
        )
    return config[name]


def _validate_type(field: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise _bad(field, value, "it has to be True or False")
    elif isinstance(default, str):
        if not isinstance(value, str):
            raise _bad(field, value, "it has to be text")
    elif isinstance(default, int | float):
        _validate_number(field, value, is_whole=isinstance(default, int))
    elif isinstance(default, tuple) and not isinstance(value, tuple | list):
        raise _bad(field, value, "it has to be a tuple, such as (1,2) or ()")


def _validate_number(field: str, value: Any, *, is_whole: bool) -> None:
    kinds = (int,) if is_whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # nor is nan
        kind = "whole" if is_whole else "finite"
        raise _bad(field, value, f"it has to be a {kind} number")


def _validate_data(config: Any) -> None:
    from experiments.data import DataError, check_name, options, read_rules

    try:
        check_name(get(config, "data.name"))
    except DataError as error:
        raise UserError(f"config.data.name: {error}") from None
    try:
        read_rules(config.data)
        options.read(config.data)
    except DataError as error:
        raise UserError(str(error)) from None
    if config.eval.split == "validation" and not config.data.validation:
        raise UserError(
            "config.eval.split is 'validation' and config.data.validation is empty; name a split "
            "or evaluate on test."
        )


def _validate_mesh(config: Any) -> None:
    axes = ("mesh.data", "mesh.model")
    for field in axes:
        size = get(config, field)
        if not (size > 0 or size == -1):
            expected = "it has to be a number of devices, or -1, all that are left"
            raise _wrong(field, config, expected)
    if all(get(config, field) == -1 for field in axes):
        raise UserError(
            "config.mesh.data and config.mesh.model are both -1; one of them may be, all devices "
            "that are left."
        )


def _validate_training(config: Any) -> None:
    for field in ("eval_every", "checkpoint_every"):
        if config.train[field] % config.train.log_every:
            expected = (
                f"it has to be a multiple of config.train.log_every, {config.train.log_every}"
            )
            raise _wrong(f"train.{field}", config, expected)
    if not config.train.ema < 1.0:
        raise _wrong("train.ema", config, "a decay has to be below 1")


def _wrong(field: str, config: Any, expected: str) -> UserError:
    return _bad(field, get(config, field), expected)


def _bad(field: str, value: Any, expected: str) -> UserError:
    shown = " ".join(repr(value).split())
    return UserError(f"config.{field} is {shown}; {expected}.")
