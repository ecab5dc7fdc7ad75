"""Colour images of 32x32 pixels by mixtures of discretised logistics, the likelihood of PixelCNN++
(Salimans et al. 2017), given latents.

    python -m experiments.train --config=configs/colour.py
    python -m experiments.train --config=configs/colour.py --config.data.name=npz:FILE

Variants: photos (default), a convolutional VAE on images cut from two photographs; bidirectional,
four stochastic layers of convolutions, which is for a GPU. Bits per dimension are in the closing
table. A likelihood without mixture or coupling: --config.model.likelihood=discretized_logistic;
Gaussian with its variance at the optimum (Rybkin et al. 2021): gaussian_optimal.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("photos", "bidirectional")


def get_config(variant: str = "photos") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/colour.py")
    config = base.get_config()
    config.data.update(name="photos", binarisation="none")
    likelihood = dict(name="logistic_mixture", num_components=5, num_channels=3)
    if variant == "photos":
        config.model = dict(
            name="vae",
            num_latents=32,
            network=dict(name="conv", hidden=(16, 32), activation="gelu"),
            likelihood=likelihood,
        )
    else:
        config.model = dict(
            name="conv_bidirectional_vae",
            num_latents=(2, 2, 4, 4),  # at each pixel of a layer, from the image upwards
            halvings=(1, 2, 2, 3),
            width=32,
            likelihood=likelihood,
        )
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=500)
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(
        batch_size=64,
        num_steps=2000,
        log_every=100,
        eval_every=1000,
        checkpoint_every=500,
        clip_norm=1000.0,
    )
    config.eval.update(batch_size=50, num_samples=1, num_importance_samples=20)
    config.name = f"colour-{variant}"
    return config
