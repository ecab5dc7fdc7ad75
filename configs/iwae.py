"""Importance-weighted auto-encoders (Burda et al. 2016): one and two stochastic layers.

    python -m experiments.train --config=configs/iwae.py           # two layers, two minutes
    python -m experiments.train --config=configs/iwae.py:one_layer
    python -m experiments.train --config=configs/iwae.py --config.objective.estimator=dreg
    python -m experiments.train --config=configs/iwae.py:mnist --config.data.data_dir=DIR

Variants: two_layers (default), one_layer, mnist: one layer of 50 in the paper's sizes, K = 5, for
0.33 million steps of 100 images in place of its 9.8 million of 20; mnist_two_layers. Two layers: z1
below z2, and a bottom-up guide whose KL is closed at the top alone; log p(x) is what to compare,
not the ELBO.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("two_layers", "one_layer", "mnist", "mnist_two_layers")


def get_config(variant: str = "two_layers") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/iwae.py")
    config = base.get_config()
    if variant.endswith("two_layers"):
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
    if variant.startswith("mnist"):
        _mnist(config, variant)
    config.name = f"iwae-{variant}"
    return config


def _mnist(config: ConfigDict, variant: str) -> None:
    config.data.update(base.mnist())
    if variant == "mnist":
        config.model.num_latents = 50
        config.model.network.hidden = (200, 200)
    else:
        config.model.num_latents = (100, 50)
        config.model.hidden = ((200, 200), (100, 100))
    config.objective.update(estimator="dreg", num_samples=5)
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=1000)
    config.train.update(
        ema=0.9998,
        batch_size=100,
        num_steps=330_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
