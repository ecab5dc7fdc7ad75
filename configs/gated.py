"""The gated VAE of Tomczak & Welling (2018), the strongest published baseline of dense layers, with
other bounds and priors.

    python -m experiments.train --config=configs/gated.py             # digits, a minute
    python -m experiments.train --config=configs/gated.py:mnist --config.data.data_dir=DIR

Variants: digits (default); mnist, 784-300-300-40 for a quarter of a million steps; mnist_iwae5, the
bound of five samples with doubly reparameterised gradients; mnist_mixture and mnist_flow, with a
learned prior of 500 Gaussians or of 8 coupling layers; mnist_miselbo, whose guide is a mixture of
three Gaussians, each sampled at every step (Kviman et al. 2022), for 100,000 steps. Adam with a
cosine schedule and averaged parameters stands for the paper's gradients normalised by layer.
docs/papers.md has the numbers.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "mnist", "mnist_iwae5", "mnist_mixture", "mnist_flow", "mnist_miselbo")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/gated.py")
    config = base.get_config()
    config.model = dict(
        name="vae",
        num_latents=10,
        network=dict(name="gated_mlp", hidden=(128, 128)),
        prior="standard_normal",
        kl="closed",
    )
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=500)
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(num_steps=3000, eval_every=1000)
    if variant != "digits":
        _mnist(config)
    if variant == "mnist_iwae5":
        _iwae(config)
    if variant in ("mnist_mixture", "mnist_flow"):
        _learned_prior(config, variant)
    if variant == "mnist_miselbo":
        _mixture_guide(config)
    config.name = f"gated-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """Batches of 100, the weight of the KL rising over the first 20 epochs."""
    config.data.update(base.mnist())
    config.model.num_latents = 40
    config.model.network.hidden = (300, 300)
    config.objective.beta.num_steps = 10_000
    config.optim.learning_rate.warmup_steps = 1000
    config.train.update(
        ema=0.9998,
        batch_size=100,
        num_steps=250_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=10)


def _iwae(config: ConfigDict) -> None:
    """Without a warm-up of the KL, which a bound of log-weights does not have apart."""
    config.objective = dict(name="negative_bound", bound="iwae", estimator="dreg", num_samples=5)
    config.train.num_steps = 150_000


def _learned_prior(config: ConfigDict, variant: str) -> None:
    config.model.kl = "drawn"
    if variant == "mnist_mixture":
        config.model.prior = dict(name="mixture_of_gaussians", num_components=500)
        config.train.num_steps = 300_000
    else:
        family = dict(name="real_nvp", num_layers=8, hidden=(256,))
        config.model.prior = dict(name="flow", family=family)
        config.train.num_steps = 200_000


def _mixture_guide(config: ConfigDict) -> None:
    config.model.update(family=dict(name="mixture", num_components=3), kl="drawn")
    config.objective = dict(
        name="negative_bound", bound="elbo", estimator="stratified", num_samples=1
    )
    config.train.num_steps = 100_000
