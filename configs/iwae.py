"""Importance-weighted auto-encoders (Burda et al. 2016): one and two stochastic layers.

    python -m experiments.train --config=configs/iwae.py           # two layers, two minutes
    python -m experiments.train --config=configs/iwae.py:one_layer
    python -m experiments.train --config=configs/iwae.py --config.objective.estimator=dreg

Variants: two_layers (default), one_layer. Two layers: z1 below z2, and a bottom-up guide whose KL
is closed at the top alone; log p(x) is what to compare, not the ELBO.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("two_layers", "one_layer")


def get_config(variant: str = "two_layers") -> ConfigDict:
    """The config of one variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/iwae.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
        )
    config = base.get_config()
    if variant == "two_layers":
        config.model = dict(
            name="hierarchical_vae",
            num_latents=(16, 8),  # from the image upwards
            # widths of the networks between a layer and the one below it
            hidden=((128, 128), (64, 64)),
            activation="tanh",
        )
    else:
        config.model = dict(
            name="vae",
            num_latents=16,
            network=dict(name="mlp", hidden=(128, 128), activation="tanh"),
        )
    config.objective = dict(
        name="negative_bound", bound="iwae", estimator="reparam", num_samples=50
    )
    config.train.update(num_steps=2000)
    config.name = f"iwae-{variant}"
    return config
