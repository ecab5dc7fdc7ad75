"""Full variational Bayes over weights and latents (Kingma & Welling 2013, appendix F, which has no
experiment), beside the point estimate of the same network.

    python -m experiments.train --config=configs/full_vb.py           # digits, a minute
    python -m experiments.train --config=configs/full_vb.py:mnist_1000 --config.data.data_dir=DIR
    python -m experiments.train --config=configs/full_vb.py:mnist_1000 --config.data.data_dir=DIR \\
        --config.objective=negative_elbo --config.objective.beta=1.0 --config.train.keep_best=True
    python -m experiments.evaluate --workdir=RUN --split=test --weights=50 --num_samples=1000 \\
        --train=1000

Variants: digits (default), mnist_1000 (the first 1,000 training images), mnist (50,000). The second
command is the point estimate, whose last checkpoint is that of as many steps, and whose best
(--checkpoint=best) is that of the best ELBO of the validation split.
q is a Gaussian over the decoder's weights; the guide's own weights are no random variables. Noise
is local (Kingma, Salimans & Welling 2015), and the prior's scales are at their optimum. --weights
averages p(x) over samples of the weights. mnist_1000, three seeds, log p(x) of the test images by
1,000 samples: the predictive -141.3 +- 0.4, 38 nats below training images; the point estimate
-245.4 +- 1.1, 197 below, at its end, and -121.7 +- 0.4, 30 below, at its best: a posterior over the
weights is worth much, and less than the validation images that choose a point. (By 10,000 samples,
of 500 weights, the predictive of 300 validation images is 4.0 nats higher than by 1,000 of 50.)
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("digits", "mnist_1000", "mnist")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/full_vb.py")
    config = base.get_config()
    config.model = dict(
        name="vae",
        num_latents=10,
        network=dict(name="mlp", hidden=(128,), activation="tanh"),
        likelihood="bernoulli",
    )
    config.objective = dict(
        name="full_vb",
        prior_scale="learned",
        noise="local",
        beta=dict(name="linear_warmup", num_steps=2000),
    )
    # a fixed set of binary images, whose bound appendix F is of; afresh they would be more than N
    config.data.binarisation = "static"
    if variant != "digits":
        _mnist(config)
    if variant == "mnist_1000":
        config.data.update(train="train[:1000]", validation="train[50000:]")
        config.objective.beta.num_steps = 10_000
        config.train.update(num_steps=20_000, eval_every=1000, checkpoint_every=2000)
    config.eval.split = "validation"
    config.name = f"full_vb-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    config.data.update(base.mnist())
    config.model.network.hidden = (200,)
    config.model.num_latents = 20
    config.optim.learning_rate = dict(name="cosine", peak=3e-3, warmup_steps=500)
    config.train.update(
        ema=0.999,
        batch_size=100,
        num_steps=60_000,
        log_every=500,
        eval_every=2000,
        checkpoint_every=4000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
