"""What the config of a neural topic model may say, and the training that it stands for."""

from typing import Any

from configs import base
from experiments import cli, config_file, settings
from experiments.rooms import DOCUMENT_CHOICES
from experiments.topics import config as of_documents

OWN = {"evidence_docs": 0, "refined_docs": 0}  # of config.eval, beside those of every training
GROUPS = ("model", "objective", "optim", "train", "eval")


_MISMATCH = {
    True: "config.data.covariates is set, and {model} takes no covariates; take "
    "configs/topics/neural.py:scholar, or leave them out.",
    False: "config.model is scholar, and no covariates are named; set "
    "--config.data.covariates=COLUMN[,COLUMN], or take configs/topics/neural.py:prodlda.",
}


def validate(config: Any) -> None:
    """Raises UserError for the first thing in a config that cannot be meant."""
    of_documents.validate_data(config)
    if not isinstance(config.data.get("covariates", ""), str):
        raise cli.UserError(
            f"config.data.covariates is {config.data.covariates!r}; it has to be names with commas "
            "between them."
        )
    for group in GROUPS:
        if not hasattr(config.get(group), "items"):
            raise cli.UserError(
                f"the config has no group {group}; configs/topics/neural.py has all of them."
            )
    unknown = sorted(set(config) - {"name", "seed", "data", *GROUPS})
    if unknown:
        raise cli.UserError(f"the config has a field {unknown[0]} that no one reads.")
    for name in OWN:
        value = config.eval.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise cli.UserError(
                f"config.eval.{name} is {value!r}; it has to be a whole number of at least 0."
            )
    settings.validate(as_training(config), DOCUMENT_CHOICES)
    has_covariates = bool(config.data.get("covariates", ""))
    if has_covariates != (config.model["name"] == "scholar"):
        raise cli.UserError(_MISMATCH[has_covariates].format(model=config.model["name"]))
    if config.model["name"] == "nvdm" and not config.model.get("shares", False):
        raise cli.UserError(
            "config.model is nvdm without shares, whose latents are no shares of topics; set "
            "--config.model.shares=True, or take configs/topics/neural.py:gsm."
        )


def as_training(config: Any) -> Any:
    """The config of configs/base.py, which the loop of experiments.train reads, with what a config
    of documents says of the training.
    """
    training = base.get_config().to_dict()
    plain = config.to_dict()
    training |= {name: plain[name] for name in ("name", "seed", "model", "objective", "optim")}
    training["train"] |= plain["train"]
    training["eval"] |= {name: value for name, value in plain["eval"].items() if name not in OWN}
    return config_file.as_config(training)
