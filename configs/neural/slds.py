"""A switching linear dynamical system of spike counts: dynamics that change with a hidden state.

    python -m experiments.train --config=configs/neural/slds.py      # simulated, 16 starts

The data, `rotations`, are simulated: 50 neurons that follow a point in the plane, which turns in
one of three ways, with the true rates, latents and states. The posterior of each trial is no
network but the best product of one over the path and one over the states, by coordinate ascent;
parameters are learned in closed form, by expectation-maximisation over all trials
(`config.model.forget`). Where states start depends on the seed, so that 16 starts are trained in
one program (`config.replicas`), each with a run folder of its own; take the one with the best ELBO
of the training trials. The closing table has the share of states that are the true ones, and
states.png both of them over the steps.

Some 135 s of the processor before the closing evaluation of each start, on a busy machine. Of 16
starts the one with the best ELBO of the training trials, -9,778.9 nats, has 99.2 % of the
states of the 12 test trials, ELBO -9,609.4 ± 55.6 nats; ten starts are there, the others at worse
optima. Of all that are there the ELBO of training rises at every step; each E-step begins anew, and
of five at worse optima it fell by up to 0.5 nats. Variants: rotations.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("rotations",)


def get_config(variant: str = "rotations") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/neural/slds.py")
    config = base.get_config()
    config.data.update(name="rotations", kind="sequences", kinds="poisson", validation="")
    config.model = dict(
        name="slds",
        num_latents=2,
        num_states=3,
        likelihood="poisson",
        num_passes=4,
        forget=1.0,
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.optim.learning_rate = dict(name="cosine", peak=5e-3, warmup_steps=5)
    config.replicas = 16
    config.train.update(
        batch_size=24,
        num_steps=12,
        log_every=1,
        eval_every=12,
        checkpoint_every=12,
        ema=0.0,
    )
    config.eval.update(batch_size=12, num_importance_samples=20)
    config.name = "slds-rotations"
    return config
