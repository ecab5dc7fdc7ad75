"""Figure 2 of Kingma & Welling (2013): one tanh layer each way, Adagrad, batches of 100, one
sample, against wake-sleep at equal numbers of samples.

    python -m experiments.train --config=configs/aevb.py              # digits, half a minute
    python -m experiments.train --config=configs/aevb.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/aevb.py:frey --config.data.name=npz:FILE
    python -m experiments.train --config=configs/aevb.py:mnist_wake_sleep --config.data.data_dir=DIR

Variants: digits (default), mnist (500 hidden units, 10 million samples), frey (Frey faces, 200
hidden units, a Gaussian decoder whose means go through a sigmoid; FILE holds the 28 x 20 images as
`images`); digits_wake_sleep, mnist_wake_sleep and frey_wake_sleep have the sleep phase of Hinton et
al. (1995) for the guide and the same decoder. The paper's numbers of latents are
config.model.num_latents of 3, 5, 10, 20, 200, and of 2, 5, 10, 20 on the faces. Its N(0, I) prior
on the weights is left out. Adagrad's rate is the paper's choice from 0.01, 0.02 and 0.1, by the
validation ELBO of short runs of 10 latents, for each method and data set: `RATES`.
"""

from ml_collections import ConfigDict

from configs import base

DATA = ("digits", "mnist", "frey")
# validation ELBO, nats, at the three rates. Faces, 5,000 steps: AEVB 1,083, 904 and -591,
# wake-sleep 969, 903 and -1e10. MNIST, 4,000 steps: AEVB -123.1, -118.0 and -834, wake-sleep -132.0
# and -126.8, and it diverges at 0.1
RATES = {"frey": 0.01, "frey_wake_sleep": 0.01}
RATE = 0.02  # of the others
VARIANTS = (*DATA, *(f"{name}_wake_sleep" for name in DATA))


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/aevb.py")
    config = base.get_config()
    config.model = dict(
        name="vae",
        num_latents=10,
        network=dict(name="mlp", hidden=(64,), activation="tanh"),
        likelihood="bernoulli",
    )
    config.objective = dict(name="negative_elbo", num_samples=1)
    config.optim = dict(name="adagrad", learning_rate=RATES.get(variant, RATE))
    config.train.update(ema=0.0, batch_size=100, num_steps=4000)
    name = variant.removesuffix("_wake_sleep")
    if name != "digits":
        _paper(config)
    if name == "mnist":
        config.data.update(base.mnist())
        config.model.network.hidden = (500,)
    if name == "frey":
        config.data.update(name="npz:freyfaces.npz", binarisation="none")
        config.model.network.hidden = (200,)
        config.model.likelihood = dict(
            name="gaussian_heteroscedastic", link="sigmoid", sigma_init=0.1
        )
    if variant != name:
        config.objective = dict(name="wake_sleep", num_samples=1)
    config.name = f"aevb-{variant}"
    return config


def _paper(config: ConfigDict) -> None:
    """Ten million samples."""
    config.train.update(
        num_steps=100_000,
        log_every=1000,
        eval_every=2000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
