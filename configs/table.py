"""A VAE of a table: real columns, counts, classes and yes or no side by side, with missing values.

    python -m experiments.train --config=configs/table.py      # breast_cancer, half a minute
    python -m experiments.train --config=configs/table.py --config.data.name=csv:FILE
    python -m experiments.train --config=configs/table.py:counts --config.data.name=npz:FILE
    python -m experiments.data --config=configs/table.py --config.data.name=csv:FILE   # the report

Variants: table (default; kinds of columns guessed from their values), counts (negative binomials,
with the total of a row as its exposure). docs/data.md has all fields of a table.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("table", "counts")


def get_config(variant: str = "table") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/table.py")
    config = base.get_config()
    config.data.update(name="breast_cancer", kind="table")
    config.model = dict(
        name="table_vae",
        num_latents=10,
        hidden=(64,),
        # linear: with some hundreds of rows a decoder with hidden layers learns them by heart; try
        # (64,) with thousands
        decoder_hidden=(),
        activation="tanh",
        # the posterior that the decoder implies, moved by the encoder; "encoder": the encoder alone
        guide="linearised_encoder",
        prior="standard_normal",
        kl="closed",
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.optim.learning_rate = dict(name="cosine", peak=3e-3, warmup_steps=100)
    config.train.update(num_steps=2000)
    if variant == "counts":
        config.data.update(name="digits", kinds="negative_binomial", exposure="total")
    config.name = f"table-{variant}"
    return config
