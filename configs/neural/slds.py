"""A switching linear dynamical system of spike counts: dynamics that change with a hidden state.

    python -m experiments.train --config=configs/neural/slds.py      # simulated, some minutes
    python -m experiments.train --config=configs/neural/slds.py --config.model.num_states=2
    python -m experiments.train --config=configs/neural/slds.py --config.replicas=4

The data of the first command, `rotations`, are simulated: 50 neurons that follow a point in the
plane which turns in one of three ways, with the true rates, latents and states. The posterior of
each trial is the best product of one over the path and one over the states, by coordinate ascent
(`config.model.num_passes`); parameters are learned in closed form. Where states start depends on
the seed, and so does what is found: run several side by side with `config.replicas` and keep the
one with the best ELBO. Variants: rotations, lorenz.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("rotations", "lorenz")


def get_config(variant: str = "rotations") -> ConfigDict:
    """The config of one variant."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/neural/slds.py has no variant {variant!r}; it has {', '.join(VARIANTS)}."
        )
    config = base.get_config()
    config.data.update(name=variant, kind="sequences", kinds="poisson", validation="")
    config.model = dict(
        name="slds",
        num_latents=2,
        num_states=3,
        likelihood="poisson",
        num_passes=8,
        forget=1.0,
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.optim.learning_rate = dict(name="cosine", peak=5e-3, warmup_steps=10)
    config.train.update(
        batch_size=24,
        num_steps=30,
        log_every=5,
        eval_every=15,
        checkpoint_every=15,
        ema=0.0,
    )
    if variant == "lorenz":
        config.model.update(num_latents=6, num_states=2, forget=0.6)
        config.train.update(
            batch_size=130,
            num_steps=60,
            log_every=10,
            eval_every=30,
            checkpoint_every=30,
            ema=0.9,
        )
    config.eval.update(batch_size=24)
    config.name = f"slds-{variant}"
    return config
