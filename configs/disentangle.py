"""Disentangled latents: beta-TC-VAE (Chen et al. 2018), beta-VAE (Higgins et al. 2017), InfoVAE
(Zhao et al. 2017).

    python -m experiments.train --config=configs/disentangle.py               # beta_tc, a minute
    python -m experiments.train --config=configs/disentangle.py:beta
    python -m experiments.train --config=configs/disentangle.py:info
    python -m experiments.train --config=configs/disentangle.py:beta_tc_full --config.replicas=5

Variants: beta_tc (default), beta, info on `shapes_small`, images made by five factors; beta_tc_full
and beta_full on `shapes`, all 184,320 images. The closing table has the mutual information gap
(MIG): 1 where each factor is told by one latent alone. It is by samples of z, without and with the
shape, which is a category. The metric `elbo` is a bound of log p(x) for each of them.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("beta_tc", "beta", "info", "beta_tc_full", "beta_full")


def get_config(variant: str = "beta_tc") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/disentangle.py")
    config = base.get_config()
    config.data.name = "shapes_small"
    config.model = dict(
        name="vae", num_latents=10, network=dict(name="mlp", hidden=(256, 256), activation="relu")
    )
    kind = variant.removesuffix("_full")
    config.objective = {
        "beta_tc": dict(name="total_correlation", alpha=1.0, beta=6.0, gamma=1.0),
        "beta": dict(name="negative_elbo", num_samples=1, beta=4.0, free_bits=0.0),
        "info": dict(name="mmd", alpha=0.5, weight=100.0),
    }[kind]
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(num_steps=4000, eval_every=2000)
    if variant.endswith("_full"):
        config.data.name = "shapes"
        # the parts of the KL are estimated by a batch: the larger it is, the less they are biased
        config.train.update(
            batch_size=512,
            num_steps=20_000,
            log_every=500,
            eval_every=10_000,
            checkpoint_every=5000,
        )
        config.eval.num_importance_samples = 50
    config.name = f"disentangle-{variant}"
    return config
