"""Deep latent Gaussian models (Rezende et al. 2014): noise at every layer, and guides of diagonal
or rank-one precision.

    python -m experiments.train --config=configs/dlgm.py             # digits, a minute
    python -m experiments.train --config=configs/dlgm.py:rank_one
    python -m experiments.train --config=configs/dlgm.py:mnist --config.data.data_dir=DIR
    python -m experiments.train --config=configs/dlgm.py:mnist --config.data.data_dir=DIR \\
        --config.model.family=rank_one_precision

DIR holds the fixed binarisation of MNIST, binarized_mnist_{train,valid,test}.amat. Variants:
diagonal (default), rank_one, mnist. The paper has 87.30 nats of -log p(x) on static MNIST with a
diagonal covariance and 86.60 with C^-1 = D + u u': compare them at equal seeds and steps,
--config.replicas=3.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("diagonal", "rank_one", "mnist")


def get_config(variant: str = "diagonal") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/dlgm.py")
    family = "rank_one_precision" if variant == "rank_one" else "mean_field"
    config = base.get_config()
    config.model = dict(
        name="dlgm",
        num_latents=(16, 8),  # from the image upwards
        # widths of the recognition network below each layer; the generative one mirrors them
        hidden=((128, 128), (64,)),
        activation="relu",
        family=family,
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    # the paper's Gaussian prior over the weights, as decay
    config.optim = dict(
        name="adamw",
        weight_decay=1e-4,
        learning_rate=dict(name="cosine", peak=1e-3, warmup_steps=100),
    )
    if variant == "mnist":
        _mnist(config)
    config.name = f"dlgm-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """One layer of 200 latents under two of 200 units, batches of 200 (section 6 of the paper),
    trained with Adam, a cosine schedule and averaged parameters.
    """
    config.data.update(name="binarized_mnist", binarisation="none")
    config.model.update(num_latents=(200,), hidden=((200, 200),))
    config.train.update(
        ema=0.9995,
        batch_size=200,
        num_steps=100_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=500, num_samples=1, num_importance_samples=100)
