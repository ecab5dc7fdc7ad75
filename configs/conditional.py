"""The conditional VAE (Sohn et al. 2015): digits given their class.

    python -m experiments.train --config=configs/conditional.py       # digits, about a minute

Variants: digits. An example is a dictionary of `image` and `label`; the label is in the guide, the
prior and the decoder. The ELBO and log p are of the image given its label. samples.png has the
classes of the test examples, in their order.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits",)


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/conditional.py has no variant {variant!r}; it has digits.")
    config = base.get_config()
    config.data.with_labels = True
    config.model = dict(
        name="conditional_vae", num_latents=10, hidden=(256, 256), activation="tanh"
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.name = f"conditional-{variant}"
    return config
