"""What the config of a posterior may say: its fields, their types and ranges."""

from typing import Any

from experiments import cli
from experiments.posteriors import models
from experiments.rooms import METHOD, ROOMS

COMBINE = ("best", "stack")  # as in vi.fit
FIELDS = {
    "name": str,
    "seed": int,
    "model": str,
    "data": str,
    "data_dir": str,
    "num_starts": int,
    "combine": str,
    "num_draws": int,
    "float64": bool,
}
RANGES = {
    "num_starts": (1, cli.MAX_COUNT),
    "num_draws": (25, cli.MAX_COUNT),
    "seed": (0, cli.MAX_SEED),
}


def validate(config: Any) -> None:
    """Raises UserError for the first thing in a config that cannot be meant."""
    for field, kind in FIELDS.items():
        if field not in config:
            raise cli.UserError(
                f"the config has no field {field}; configs/posterior/eight_schools.py has all of "
                "them."
            )
        if not isinstance(config[field], kind) or (kind is int and isinstance(config[field], bool)):
            raise cli.UserError(
                f"config.{field} is {config[field]!r}; it has to be of type {kind.__name__}."
            )
    for field, (least, most) in RANGES.items():
        if not least <= config[field] <= most:
            raise cli.UserError(
                f"config.{field} is {config[field]}; it has to be at least {least} and at most "
                f"{most:,}."
            )
    if config.combine not in COMBINE:
        raise cli.UserError(
            f"config.combine is {config.combine!r}; it can be {', '.join(COMBINE)}."
        )
    models.check_name(config.model)
    models.check_data(config.model, config.data)
    ROOMS.check(METHOD, config.get("method"), where="config.method")
