"""The variational auto-encoder of Kingma & Welling (2013) on images, one latent layer.

    python -m experiments.train --config=configs/vae.py       # digits: no download, half a minute
    python -m experiments.train --config=configs/vae.py:mnist --config.data.data_dir=DIR

DIR holds the IDX files of MNIST. Variants: digits (default), mnist, aevb, fashion_mnist, gaussian,
conv. Expect a test ELBO of -22.6 +- 0.2 nats on digits, and of -94.5 +- 0.25 on MNIST.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "mnist", "aevb", "fashion_mnist", "gaussian", "conv")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant; every number that a run depends on is here or in base.py."""
    base.check_variant(variant, VARIANTS, "configs/vae.py")
    config = base.get_config()
    config.model = dict(
        name="vae",
        num_latents=10,
        # widths from the image towards the latent; the decoder mirrors them
        network=dict(name="mlp", hidden=(256, 256), activation="tanh"),
        likelihood="bernoulli",
        family="mean_field",
        prior="standard_normal",
        kl="closed",  # closed | half_closed | drawn: what the family and the prior allow
    )
    config.objective = dict(
        name="negative_elbo",
        num_samples=1,  # samples of z per example: L of the paper
        beta=1.0,  # weight of the KL, or a schedule of it; anything but 1 is no bound of log p(x)
        free_bits=0.0,  # nats per latent dimension that cost nothing
    )
    if variant != "digits":
        _VARIANTS[variant](config)
    config.name = f"vae-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """784-500-20 as in Kingma & Welling (2013), trained with Adam, a cosine schedule and averaged
    parameters.
    """
    config.data.update(base.mnist())
    config.model.network.hidden = (500,)
    config.model.num_latents = 20
    config.optim.learning_rate = dict(name="cosine", peak=3e-3, warmup_steps=1000)
    config.train.update(
        ema=0.9995,
        batch_size=256,
        num_steps=40_000,
        log_every=500,
        eval_every=2000,
        checkpoint_every=4000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)


def _aevb(config: ConfigDict) -> None:
    """Kingma & Welling (2013) as printed: Adagrad, batches of 100, one sample; compare `mnist`."""
    _mnist(config)
    config.optim = dict(name="adagrad", learning_rate=0.02)
    config.train.update(
        ema=0.0,
        batch_size=100,
        num_steps=100_000,
        log_every=1000,
        eval_every=5000,
        checkpoint_every=10_000,
    )


def _fashion_mnist(config: ConfigDict) -> None:
    """Fashion-MNIST as grey levels under a discretised logistic: log p(x) is that of the 8-bit
    pixels.
    """
    _mnist(config)
    config.data.update(name="fashion_mnist", binarisation="none")
    config.model.likelihood = "discretized_logistic"


def _gaussian(config: ConfigDict) -> None:
    """Grey digits under N(x | f(z), sigma^2 I) with sigma at its optimum each step (Rybkin et al.
    2021).

    An optimal sigma follows the training error down, so that a wide decoder overfits 1,257 digits:
    the widths are small.
    """
    config.data.binarisation = "none"
    config.model.network.hidden = (64,)
    config.model.num_latents = 16
    config.model.likelihood = dict(name="gaussian_optimal", link="sigmoid")


def _conv(config: ConfigDict) -> None:
    """The same digits through convolutions, with a latent plane of two dimensions."""
    config.model.network = dict(name="conv", hidden=(16, 32), activation="gelu")
    config.model.num_latents = 2
    config.train.num_steps = 2000
    config.eval.num_importance_samples = 100


_VARIANTS = {
    "mnist": _mnist,
    "aevb": _aevb,
    "fashion_mnist": _fashion_mnist,
    "gaussian": _gaussian,
    "conv": _conv,
}
