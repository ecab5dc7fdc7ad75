"""Variational diffusion (Kingma et al. 2021) at small size: a density of grey levels.

    python -m experiments.train --config=configs/diffusion.py        # digits, about two minutes

Variants: digits. log p(x) is of the 17 grey levels of the digits, and bits per dimension are in the
closing table. The ELBO is the bound in continuous time; log p(x) by importance sampling and the
samples are of the chain of `config.model.num_steps` steps.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits",)


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/diffusion.py")
    config = base.get_config()
    config.data.binarisation = "none"
    config.model = dict(
        name="diffusion",
        hidden=(256, 256),
        num_steps=32,
        num_times=2,
        likelihood="categorical",
    )
    config.objective = dict(name="negative_elbo", num_samples=1)
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(eval_every=2000)
    config.eval.update(num_samples=64, num_importance_samples=50)
    config.name = f"diffusion-{variant}"
    return config
