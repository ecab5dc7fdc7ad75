"""The ladder VAE (Sonderby et al. 2016): five stochastic layers, and a guide that merges the prior
of each layer with what the data say, by precision.

    python -m experiments.train --config=configs/ladder.py           # digits, about two minutes
    python -m experiments.train --config=configs/ladder.py:mnist --config.data.data_dir=DIR

Variants: digits (default), mnist in the paper's sizes, with layer normalisation in place of its
batch normalisation. Warm-up of the KL; every KL is in closed form. The KL of each layer is in
metrics.jsonl (train/kl/z1 ... z5): the upper ones tend to go unused.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "mnist")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/ladder.py")
    config = base.get_config()
    config.model = dict(
        name="ladder_vae",
        num_latents=(16, 8, 8, 4, 4),  # from the image upwards
        hidden=((128, 128), (64, 64), (64, 64), (32, 32), (32, 32)),
        activation="leaky_relu",
        norm="none",  # or layer
    )
    config.objective = dict(
        name="negative_elbo",
        num_samples=1,
        beta=dict(name="linear_warmup", num_steps=1000),
        free_bits=0.0,
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    if variant == "mnist":
        _mnist(config)
    config.name = f"ladder-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """Latents 64-32-16-8-4, layers normalised, the KL warmed up over 100 epochs of 256."""
    config.data.update(base.mnist())
    config.model.num_latents = (64, 32, 16, 8, 4)
    config.model.norm = "layer"
    config.model.hidden = ((512, 512), (256, 256), (128, 128), (64, 64), (32, 32))
    config.objective.beta.num_steps = 20_000
    config.optim.learning_rate.warmup_steps = 1000
    config.train.update(
        ema=0.9998,
        batch_size=256,
        num_steps=150_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
