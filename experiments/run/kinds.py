"""Whether the model of a config is of the kind of its data: a table, images, which levels."""

import sys
from collections import Counter
from typing import Any

from experiments import build
from experiments.build import Units
from experiments.cli import UserError
from experiments.data import Dataset

EIGHT_BITS = 256  # levels of a pixel


def require_kind(config: Any, dataset: Dataset) -> None:
    """Raises UserError where a model of images is given a table, or one of tables images."""
    name = config.data.name
    (name_of_model, takes_tables, is_ours) = build.of_tables(config)
    if dataset.table is not None and is_ours and not takes_tables:
        num = len(dataset.table.columns)
        raise UserError(
            f"{name} is a table of {dataset.train.num:,} training rows x {num:,} columns "
            f"({_kinds(dataset.table)}), and the model {name_of_model} is of images; take "
            f"--config=configs/table.py --config.data.name={name}, or, where its columns are "
            "pixels, --config.data.kind=images."
        )
    if dataset.table is None and takes_tables:
        raise UserError(
            f"{name} holds images {dataset.x_shape}, and the model {name_of_model} is of "
            f"tables; take --config=configs/vae.py --config.data.name={name}, or "
            "--config.data.kind=table, which takes every pixel for a column."
        )


def _kinds(table: Any) -> str:
    """How many columns there are of each kind."""
    counts = Counter(table.kinds)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def note_probabilities(config: Any, dataset: Dataset, units: Units) -> None:
    """Says where grey levels are taken for probabilities of a one."""
    is_grey = config.data.binarisation == "none" and dataset.num_levels > 2
    if is_grey and units.support == "binary":
        print(
            "note: grey levels under a Bernoulli likelihood are read as probabilities: the ELBO "
            "is the mean over binary images.",
            file=sys.stderr,
        )
    is_drawn = config.data.binarisation == "dynamic" and dataset.num_levels == EIGHT_BITS
    if is_drawn and build.takes(config, "model", "likelihood"):
        print(
            "note: each pixel is drawn as 0 or 1 with its level as probability; "
            "--config.data.binarisation=none --config.model.likelihood=discretized_logistic keeps "
            "the levels.",
            file=sys.stderr,
        )
