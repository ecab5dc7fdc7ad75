"""Gaussian-process factor analysis of spike counts: smooth latents, a time scale for each.

    python -m experiments.train --config=configs/neural/gpfa.py      # simulated, some two minutes
    python -m experiments.train --config=configs/neural/gpfa.py:negative_binomial
    python -m experiments.train --config=configs/neural/gpfa.py --config.model.kernel=matern52

The data of the first command, `lorenz`, and the tables and figures are those of
configs/neural/plds.py. Latents are independent Gaussian processes with Matern kernels (Yu et al.
2009), counts are Poisson, or with more variance in `negative_binomial`. Loadings are learned in
closed form (`config.model.forget`), time scales by the gradient. Variants: lorenz,
negative_binomial.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("lorenz", "negative_binomial")


def get_config(variant: str = "lorenz") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/neural/gpfa.py")
    config = base.get_config()
    likelihood = "poisson" if variant == "lorenz" else variant
    config.data.update(name="lorenz", kind="sequences", kinds=likelihood, validation="")
    config.model = dict(
        name="gpfa",
        num_latents=3,
        kernel="matern32",
        likelihood=likelihood,
        num_passes=6,
        chunk=0,
        forget=0.6,
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.optim.learning_rate = dict(name="cosine", peak=5e-2, warmup_steps=10)
    config.train.update(
        batch_size=130,
        num_steps=80,
        log_every=10,
        eval_every=40,
        checkpoint_every=40,
        ema=0.9,
    )
    config.eval.update(batch_size=130)
    config.name = f"gpfa-{variant}"
    return config
