"""Many stochastic layers on one residual path, inferred from the top down (Kingma et al. 2016;
Child 2021): every layer sees what those above it have drawn, and each KL is closed.

    python -m experiments.train --config=configs/bidirectional.py         # digits
    python -m experiments.train --config=configs/bidirectional.py:conv    # convolutions
    python -m experiments.train --config=configs/bidirectional.py:mnist --config.data.data_dir=DIR

Variants: digits (default), six dense layers; conv, four of 3x3 convolutions on the digits; mnist,
twelve dense layers; mnist_conv, twelve of convolutions, which is for a GPU. The KL of each layer is
in metrics.jsonl (train/kl/z1 ...).
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "conv", "mnist", "mnist_conv")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/bidirectional.py")
    config = base.get_config()
    if variant.endswith("conv"):
        config.model = dict(
            name="conv_bidirectional_vae",
            num_latents=(2, 2, 4, 4),  # at each pixel of a layer, from the image upwards
            halvings=(1, 1, 2, 2),  # of the image at each layer
            width=16,
            activation="silu",
        )
    else:
        config.model = dict(
            name="bidirectional_vae",
            num_latents=(8, 8, 8, 4, 4, 4),
            width=128,
            activation="silu",
        )
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=500)
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(num_steps=3000, clip_norm=100.0)
    if variant.startswith("mnist"):
        _mnist(config, variant)
    config.name = f"bidirectional-{variant}"
    return config


def _mnist(config: ConfigDict, variant: str) -> None:
    config.data.update(base.mnist())
    if variant == "mnist_conv":
        config.model.num_latents = (4,) * 6 + (8,) * 6
        config.model.halvings = (1,) * 6 + (2,) * 6
        config.model.width = 32
    else:
        config.model.num_latents = (32, 32, 16, 16, 16, 16, 8, 8, 8, 8, 4, 4)
        config.model.width = 256
    config.objective.beta.num_steps = 10_000
    config.optim.learning_rate.warmup_steps = 1000
    config.train.update(
        ema=0.9998,
        batch_size=100,
        num_steps=150_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=500, num_samples=1, num_importance_samples=100)
