"""Semi-supervised learning (Kingma et al. 2014): M2, a VAE whose label y is a latent of the rows
that have none, on the digits with 50 labels.

    python -m experiments.train --config=configs/semi_supervised.py       # digits, two minutes
    python -m experiments.train --config=configs/semi_supervised.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/semi_supervised.py:stacked  # M1+M2
    python -m experiments.train --config=configs/semi_supervised.py --config.data.label_seed=1

Variants: digits (default), stacked (M1+M2: the same over the latents of a VAE of the images, which
does not see the labels), mnist and mnist_stacked (100 labels). The closing table has the test error
of q(y | x); the paper has 11.97 % +- 1.71 for M2 on MNIST with 100 labels and 3.33 % +- 0.14 for
M1+M2, over draws of the labels (config.data.label_seed). "classes used" falls towards 1 where
q(y | x) collapses onto one class.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "stacked", "mnist", "mnist_stacked")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/semi_supervised.py")
    config = base.get_config()
    config.data.update(
        with_labels=True,
        num_labels=50,  # of training rows, as many of each class; the others are hidden
        label_seed=0,  # which
        label_copies=10,  # of labelled rows, so that each batch has some; their bounds weigh less
    )
    config.model = dict(
        name="semi_supervised_vae",
        num_latents=10,
        hidden=(128,),
        classifier_hidden=(128,),
        activation="softplus",
        likelihood="bernoulli",
        alpha=1.0,  # weight of the classifier's loss
    )
    # the classifier's loss first: the bound alone may put all rows into one class
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=500)
    )
    config.train.update(num_steps=3000)
    if variant.startswith("mnist"):
        _mnist(config)
    if variant.endswith("stacked"):
        _stacked(config)
    config.name = f"semi_supervised-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """100 labels, 500 units and 50 latents, as in the paper's section 4."""
    config.data.update(**base.mnist(), num_labels=100, label_copies=300)
    config.model.update(num_latents=50, hidden=(500,), classifier_hidden=(500,), alpha=0.1)
    config.train.update(
        batch_size=200, num_steps=40_000, log_every=500, eval_every=4000, checkpoint_every=4000
    )
    config.eval.update(batch_size=500, num_samples=1, num_importance_samples=100)


def _stacked(config: ConfigDict) -> None:
    """M1 of two layers below; M2, which sees every row once for each class, has narrower ones."""
    width = config.model.hidden[0]
    narrow = min(width, 200)
    config.model.update(
        name="stacked_semi_supervised_vae",
        num_features=config.model.num_latents,
        features_hidden=(width, width),
        hidden=(narrow,),
        classifier_hidden=(narrow,),
    )
    if config.data.name == "mnist":
        config.data.label_copies = 100
        config.train.update(batch_size=100)
