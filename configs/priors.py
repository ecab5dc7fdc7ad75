"""A VAE whose prior is learned: the VampPrior and a mixture of Gaussians (Tomczak & Welling 2018),
and a normalising flow (Chen et al. 2017).

    python -m experiments.train --config=configs/priors.py         # VampPrior, two minutes
    python -m experiments.train --config=configs/priors.py:mixture
    python -m experiments.train --config=configs/priors.py:flow

Variants: vamp (default), mixture, flow. Gated layers of 128 as encoder and decoder, and the KL at
the samples, since none of these priors has it in closed form.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("vamp", "mixture", "flow")


def get_config(variant: str = "vamp") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/priors.py")
    config = base.get_config()
    prior = {
        "vamp": dict(name="vamp", num_components=100),
        "mixture": dict(name="mixture_of_gaussians", num_components=100),
        "flow": dict(name="flow", family=dict(name="real_nvp", num_layers=4)),
    }[variant]
    config.model = dict(
        name="vae",
        num_latents=10,
        network=dict(name="gated_mlp", hidden=(128, 128)),
        prior=prior,
        kl="drawn",
    )
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=500)
    )
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    config.train.update(num_steps=3000, eval_every=1000)
    config.name = f"priors-{variant}"
    return config
