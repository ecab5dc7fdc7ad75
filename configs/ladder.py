"""The ladder VAE (Sonderby et al. 2016): five stochastic layers, and a guide that merges the prior
of each layer with what the data say, by precision.

    python -m experiments.train --config=configs/ladder.py           # digits, about two minutes

Variants: digits. Warm-up of the KL over the first quarter of the run; every KL is in closed form.
The KL of each layer is in metrics.jsonl (train/kl/z1 ... z5): the upper ones tend to go unused.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits",)


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/ladder.py has no variant {variant!r}; it has digits.")
    config = base.get_config()
    config.model = dict(
        name="ladder_vae",
        num_latents=(16, 8, 8, 4, 4),  # from the image upwards
        hidden=((128, 128), (64, 64), (64, 64), (32, 32), (32, 32)),
        activation="leaky_relu",
    )
    config.objective = dict(
        name="negative_elbo",
        num_samples=1,
        beta=dict(name="linear_warmup", num_steps=1000),
        free_bits=0.0,
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.name = f"ladder-{variant}"
    return config
