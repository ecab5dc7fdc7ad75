"""Discrete latents: sigmoid belief nets (Mnih & Rezende 2016), discrete VAEs (Dong et al. 2020).

    python -m experiments.train --config=configs/discrete.py          # VIMCO, digits, two minutes
    python -m experiments.train --config=configs/discrete.py:disarm
    python -m experiments.train --config=configs/discrete.py:rebar

Variants: belief_net (default; two layers of coins under VIMCO), disarm, rebar, wake_sleep (the
belief net without a gradient through its samples), mnist (DisARM's nonlinear net of 200 Bernoulli
latents; give it config.data.data_dir).
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("belief_net", "disarm", "rebar", "wake_sleep", "mnist")


def get_config(variant: str = "belief_net") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/discrete.py")
    config = base.get_config()
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=100)
    if variant in ("belief_net", "wake_sleep"):
        config.model = dict(name="sigmoid_belief_net", num_latents=(64, 32))
    else:
        config.model = dict(
            name="discrete_vae", num_latents=64, hidden=(128,), activation="leaky_relu"
        )
    if variant == "mnist":
        _mnist(config)
        return config
    config.objective = {
        "belief_net": dict(name="negative_bound", bound="iwae", estimator="vimco", num_samples=5),
        "disarm": dict(name="negative_bound", bound="elbo", estimator="disarm", num_samples=2),
        "rebar": dict(
            name="negative_bound",
            bound="elbo",
            estimator=dict(name="rebar", temperature=0.5),
            num_samples=2,
        ),
        "wake_sleep": dict(name="wake_sleep", num_samples=5),
    }[variant]
    config.train.update(num_steps=3000, eval_every=1000)
    config.name = f"discrete-{variant}"
    return config


def _mnist(config: ConfigDict) -> None:
    """200 latents, two layers of 200 each way, two pairs of DisARM, 100,000 steps of 50 (Dong et
    al. 2020, sec. 5, with one pair and a million steps).
    """
    config.data.update(base.mnist())
    config.model.update(num_latents=200, hidden=(200, 200))
    config.objective = dict(name="negative_bound", bound="elbo", estimator="disarm", num_samples=4)
    config.optim.learning_rate = dict(name="cosine", peak=1e-3, warmup_steps=1000)
    config.train.update(
        batch_size=50,
        num_steps=100_000,
        log_every=1000,
        eval_every=10_000,
        checkpoint_every=10_000,
    )
    config.eval.update(batch_size=1000, num_samples=1, num_importance_samples=100)
    config.name = "discrete-mnist"
