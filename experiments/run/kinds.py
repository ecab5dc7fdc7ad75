"""Whether the model of a config is of the kind of its data: images, a table, sequences, which
levels.
"""

from collections import Counter
from typing import Any

import jax

import vi_jax as vi
from experiments import build, terminal
from experiments.build import IMAGES, SEQUENCES, TABLES, Units
from experiments.cli import UserError
from experiments.data import Dataset

EIGHT_BITS = 256  # levels of a pixel
CONFIGS = {
    IMAGES: "configs/vae.py",
    TABLES: "configs/table.py",
    SEQUENCES: "configs/sequence.py",
}
# how the same numbers may be what a model wants: (what they are, what is wanted) -> words
OTHER_WAYS = {
    (TABLES, IMAGES): ", or, where its columns are pixels, --config.data.kind=images",
    (IMAGES, TABLES): ", or --config.data.kind=table, which takes every pixel for a column",
    (IMAGES, SEQUENCES): ", or --config.data.kind=sequences for arrays [N, T, D]",
    (TABLES, SEQUENCES): ", or name the column of sequences by --config.data.sequence=COLUMN",
}


def require_kind(config: Any, dataset: Dataset) -> None:
    """Raises UserError where a model of images, tables or sequences is given others of them.

    What a model of the user's own is of is known only where it asks for columns: it is not of
    images then.
    """
    (name_of_model, wanted, is_ours) = build.data_of_model(config)
    found = kind_of(dataset)
    is_known = is_ours or (wanted != IMAGES and found == IMAGES)
    if found == wanted or not is_known:
        return
    name = config.data.name
    raise UserError(
        f"{name} {_said(dataset)}, and the model {name_of_model} is of {wanted}; take "
        f"--config={CONFIGS[found]} --config.data.name={name}"
        f"{OTHER_WAYS.get((found, wanted), '')}."
    )


def kind_of(dataset: Dataset) -> str:
    """IMAGES, TABLES or SEQUENCES."""
    if dataset.table is None:
        return IMAGES
    return SEQUENCES if dataset.num_steps else TABLES


def _said(dataset: Dataset) -> str:
    """What a data set is."""
    if dataset.table is None:
        return f"holds images {dataset.x_shape}"
    columns = f"{len(dataset.table.columns):,} columns ({_kinds(dataset.table)})"
    if dataset.num_steps:
        return (
            f"is a set of {dataset.train.num:,} training sequences of up to {dataset.num_steps:,} "
            f"steps x {columns}"
        )
    return f"is a table of {dataset.train.num:,} training rows x {columns}"


def _kinds(table: Any) -> str:
    """How many columns there are of each kind."""
    counts = Counter(table.kinds)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


def require_imputable(model: vi.Model, x: Any) -> None:
    """Raises UserError where p(x | z) of a model, such as a user's own, lacks what imputation asks
    of it.
    """
    densities: Any = model.densities
    one = jax.tree.map(lambda leaf: leaf[0], x)
    lacking: list[str] = []

    def look(key: jax.Array) -> None:
        key_params, key_z, key_x = jax.random.split(key, 3)
        params = model.init(key_params)
        z = densities.prior(params, one).sample(key_z)
        p = densities.decode(params, one, z)
        lacking.extend(name for name in ("mean", "variance", "probs") if not hasattr(p, name))
        drawn = p.sample(key_x)
        if not isinstance(drawn, dict) or "values" not in drawn:
            lacking.append("samples that are examples, with 'values'")

    jax.eval_shape(look, jax.random.key(0))
    if lacking:
        raise UserError(
            f"p(x | z) of this model has no {' and no '.join(lacking)}, which imputation asks for; "
            "let its `decode` return such a distribution, as vi_jax.models.table_vae does."
        )


def note_probabilities(config: Any, dataset: Dataset, units: Units) -> None:
    """Says where grey levels are taken for probabilities of a one."""
    is_grey = config.data.binarisation == "none" and dataset.num_levels > 2
    if is_grey and units.support == "binary":
        terminal.say(
            "note: grey levels under a Bernoulli likelihood are read as probabilities: the ELBO "
            "is the mean over binary images.",
        )
    is_drawn = config.data.binarisation == "dynamic" and dataset.num_levels >= EIGHT_BITS
    if is_drawn and build.takes(config, "model", "likelihood"):
        terminal.say(
            "note: each pixel is drawn as 0 or 1 with its level as probability; "
            "--config.data.binarisation=none --config.model.likelihood=discretized_logistic keeps "
            "the levels.",
        )
