"""A Poisson linear dynamical system of spike counts: what moves together in a recording, and how.

    python -m experiments.train --config=configs/neural/plds.py      # simulated, a few minutes
    python -m experiments.train --config=configs/neural/plds.py:new_conditions
    python -m experiments.train --config=configs/neural/plds.py --config.data.name=spikes:FILE

The data of the first command, `lorenz`, are simulated: 30 neurons at 8 Hz that follow a Lorenz
system, with the true rates. The posterior of each trial is no network but the optimal Gaussian one,
by six passes of conjugate-computation variational inference; parameters are learned in closed form,
by expectation-maximisation over batches (`config.model.forget`; None learns by the gradient). The
closing table has the bits per spike of neurons that were hidden (co-smoothing), beside those of the
true rates, and the R² of rates and latents. Test trials of the first variant share their conditions
with training trials, as published; those of `new_conditions` do not.

Of the first command (260 test trials): co-smoothing 0.601 ± 0.013 bits per spike, 93 % of that of
the true rates; R² of the rates 0.905, of the three latents 0.967, 0.956 and 0.922; log p(x) -761.5
± 7.1 nats (K = 200), 0.03 above the ELBO, k-hat below 0.7 on 99 % of the trials. Variants: lorenz,
new_conditions.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("lorenz", "new_conditions")


def get_config(variant: str = "lorenz") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/neural/plds.py")
    config = base.get_config()
    config.data.update(name="lorenz", kind="sequences", kinds="poisson", validation="")
    if variant == "new_conditions":
        config.data.update(train="old_conditions", test="new_conditions")
    config.model = dict(
        name="poisson_lds",
        num_latents=6,
        likelihood="poisson",
        num_passes=6,
        chunk=0,
        forget=0.6,
    )
    config.objective = dict(name="negative_elbo", num_samples=1, beta=1.0, free_bits=0.0)
    config.optim.learning_rate = dict(name="cosine", peak=5e-3, warmup_steps=10)
    config.train.update(
        batch_size=130,
        num_steps=80,
        log_every=10,
        eval_every=40,
        checkpoint_every=40,
        ema=0.9,
    )
    config.eval.update(batch_size=130)
    config.name = f"plds-{variant}"
    return config
