"""The conditional VAE (Sohn et al. 2015): digits given their class.

    python -m experiments.train --config=configs/conditional.py       # digits, about a minute
    python -m experiments.train --config=configs/conditional.py:mnist --config.data.data_dir=DIR

Variants: digits (default); mnist, the sizes and the bound of iwae.py:mnist, K = 5, to be compared
with it. An example is a dictionary of `image` and `label`; the label is in the guide, the
prior and the decoder. The ELBO and log p are of the image given its label. samples.png has the
classes of the test examples, in their order.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "mnist")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/conditional.py")
    config = base.get_config()
    config.data.with_labels = True
    config.model = dict(
        name="conditional_vae", num_latents=10, hidden=(256, 256), activation="tanh"
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    if variant == "mnist":
        _mnist(config)
    config.name = f"conditional-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    config.data.update(base.mnist())
    config.model.num_latents = 50
    config.model.hidden = (200, 200)
    config.objective = dict(name="negative_bound", bound="iwae", estimator="dreg", num_samples=5)
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
