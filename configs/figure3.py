"""Figure 3 of Kingma & Welling (2013): the marginal likelihood of models of few latents, trained by
AEVB, wake-sleep and Monte Carlo EM.

    python -m experiments.train --config=configs/figure3.py            # digits, half a minute
    python -m experiments.train --config=configs/figure3.py:mnist --config.objective=mcem \\
        --config.data.data_dir=DIR
    python -m experiments.evaluate --workdir=RUN --bracket=200 --reciprocal=200

Variants: digits (default), digits_mcem, mnist_1000 (the first 1,000 training images), mnist
(50,000); config.objective of negative_elbo (AEVB), wake_sleep or mcem. 3 latents, 100 hidden units
and Adagrad, as in the paper. Monte Carlo EM has a guide that follows its posterior samples, where
the paper has none; config.objective.sampler=blackjax takes the chains of that package.
--reciprocal is the estimator of appendix D.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "digits_mcem", "mnist_1000", "mnist")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/figure3.py")
    config = base.get_config()
    config.model = dict(
        name="vae",
        num_latents=3,
        network=dict(name="mlp", hidden=(100,), activation="tanh"),
        likelihood="bernoulli",
    )
    config.objective = dict(name="negative_elbo", num_samples=1)
    config.optim = dict(name="adagrad", learning_rate=0.02)
    config.train.update(ema=0.0, batch_size=100, num_steps=4000)
    if variant == "digits_mcem":
        config.objective = dict(name="mcem", num_leapfrog=10, num_transitions=1, step_size=0.3)
    if variant.startswith("mnist"):
        config.data.update(base.mnist())
        config.train.update(num_steps=30_000, log_every=500, eval_every=3000, checkpoint_every=6000)
        config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
    if variant == "mnist_1000":
        config.data.update(train="train[:1000]", validation="train[50000:]")
        config.train.num_steps = 10_000
    config.name = f"figure3-{variant}"
    return config
