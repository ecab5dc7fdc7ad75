"""What the config of a topic model may say: its fields, their types and ranges."""

from typing import Any

from experiments import cli
from experiments.corpora import COUNTED, FORMS, TEXTS

METHODS = ("partly", "memoized", "cvb0", "svi", "cavi")
CTM = "ctm"  # the correlated topic model, whose shares are no Dirichlet's
FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "seed": (int,),
    "data.name": (str,),
    "data.held_out": (float, int),
    "data.split_seed": (int,),
    "data.token_pattern": (str,),
    "data.stop_words": (str,),
    "data.min_df": (int,),
    "data.max_df": (float, int),
    "data.lowercase": (bool,),
    "model.method": (str,),
    "model.num_topics": (int,),
    "model.alpha": (str, float, int),
    "model.eta": (float, int),
    "model.num_starts": (int,),
    "fit.num_sweeps": (int,),
    "fit.tolerance": (float, int),
    "fit.batch_size": (int,),
    "fit.kappa": (float, int),
    "fit.tau0": (float, int),
    "fit.measure_every": (int,),
    "fit.checkpoint_minutes": (float, int),
    "fit.evidence_docs": (int,),
}
SHARED = ("name", "seed", "data.")  # how the fields begin that every model of documents has
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, cli.MAX_SEED),
    "data.held_out": (0, 0.9),
    "data.split_seed": (0, cli.MAX_SEED),
    "data.min_df": (1, cli.MAX_COUNT),
    "data.max_df": (0, 1),
    "model.num_topics": (1, cli.MAX_COUNT),
    "model.eta": (0, 1e6),
    "model.num_starts": (1, 1_000),
    "fit.num_sweeps": (1, cli.MAX_COUNT),
    "fit.tolerance": (0, 1),
    "fit.batch_size": (1, cli.MAX_COUNT),
    "fit.kappa": (0.5, 1),
    "fit.tau0": (0, 1e9),
    "fit.measure_every": (1, cli.MAX_COUNT),
    "fit.checkpoint_minutes": (0, 1e6),
    "fit.evidence_docs": (0, cli.MAX_COUNT),
}


def validate(config: Any) -> None:
    """Raises UserError for the first thing in a config that cannot be meant."""
    _validate_fields(config, tuple(FIELDS))
    known = (*METHODS, CTM)
    if config.model.method not in known:
        raise cli.UserError(
            f"config.model.method is {config.model.method!r}; it can be {', '.join(known)}."
        )
    if config.model.method == CTM:
        _validate_correlated(config)
    alpha = config.model.alpha
    if not (alpha == "learn" or (not isinstance(alpha, str) and alpha > 0)):
        raise cli.UserError(
            f"config.model.alpha is {alpha!r}; it can be learn, or a number above 0."
        )
    _validate_source(config)


def _validate_correlated(config: Any) -> None:
    """That nothing is asked of the correlated topic model that it has not."""
    for field, wanted in (
        ("model.alpha", "learn"),
        ("model.num_starts", 1),
        ("fit.evidence_docs", 0),
    ):
        if _get(config, field) != wanted:
            raise cli.UserError(
                f"config.{field} is {_get(config, field)!r}, and the method ctm has a normal prior "
                f"of shares, one start and no measure of single documents; set it to {wanted}, or "
                "take configs/topics/lda.py:ctm."
            )
    if config.model.num_topics < 2:
        raise cli.UserError(
            f"config.model.num_topics is {config.model.num_topics}, and the method ctm is of the "
            "correlations of topics; it has to be at least 2."
        )


def validate_data(config: Any) -> None:
    """The same of the name, the seed and the documents alone."""
    _validate_fields(config, tuple(name for name in FIELDS if name.startswith(SHARED)))
    _validate_source(config)


def _validate_fields(config: Any, fields: tuple[str, ...]) -> None:
    """That fields are of their types and lie in their ranges."""
    for field in fields:
        kinds = FIELDS[field]
        value = _get(config, field)
        is_flag = isinstance(value, bool)
        if not isinstance(value, kinds) or is_flag != (kinds == (bool,)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise cli.UserError(f"config.{field} is {value!r}; it has to be of type {wanted}.")
    for field in (name for name in fields if name in RANGES):
        value = _get(config, field)
        (least, most) = RANGES[field]
        if not least <= value <= most:
            raise cli.UserError(
                f"config.{field} is {value}; it has to be at least {least} and at most {most:,}."
            )


def _validate_source(config: Any) -> None:
    kind = config.data.name.partition(":")[0]
    if kind not in (*COUNTED, *TEXTS):
        raise cli.UserError(
            f"config.data.name is {config.data.name!r}; it can be {', '.join(FORMS)}."
        )


def _get(config: Any, field: str) -> Any:
    value = config
    for name in field.split("."):
        if not hasattr(value, "get") or name not in value:
            raise cli.UserError(
                f"the config has no field {field}; configs/topics/lda.py has all of them."
            )
        value = value[name]
    return value
