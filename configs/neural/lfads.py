"""LFADS: latent dynamics of spike counts by a recurrent generator, a true ELBO.

    python -m experiments.train --config=configs/neural/lfads.py      # simulated, some ten minutes
    python -m experiments.train --config=configs/neural/lfads.py:tutorial \\
        --config.data.name=spikes:lfads_tutorial_lorenz.h5
    python -m experiments.train --config=configs/neural/lfads.py:new_conditions

The data of the first command, `lorenz`, and the tables and figures are those of
configs/neural/plds.py. Training is by coordinated dropout, `config.model.hide`; its metric is
called `objective`, and the evaluations are of the ELBO itself. Several shares of hidden bins train
in one program, chosen by held-out bins of validation trials: `--config.data.train='train[:90%]'
--config.data.validation='train[90%:]' --config.sweep.coordinated_dropout=.1,.3,.5`. The variant
`inputs` has an inferred input (`config.model.num_inputs`), of which the Lorenz system needs none:
its KL should stay near 0 (no number was measured). The variant `tutorial` is of the size for the
tutorial set of LFADS's authors, in the format of lfads-torch. Test trials of the first variant
share their conditions with training trials, which a recurrent generator can remember; those of
`new_conditions` do not. Variants: lorenz, inputs, new_conditions, tutorial.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ("lorenz", "inputs", "new_conditions", "tutorial")


def get_config(variant: str = "lorenz") -> ConfigDict:
    """The config of one variant."""
    base.check_variant(variant, VARIANTS, "configs/neural/lfads.py")
    config = base.get_config()
    config.data.update(name="lorenz", kind="sequences", kinds="poisson", validation="")
    if variant == "new_conditions":
        config.data.update(train="old_conditions", test="new_conditions")
    config.model = dict(
        name="lfads",
        num_latents=32,
        width=48,
        generator_width=64,
        num_factors=12,
        likelihood="poisson",
        hide=0.3,
    )
    config.objective = dict(
        name="negative_elbo", num_samples=1, beta=dict(name="linear_warmup", num_steps=400)
    )
    rate = dict(name="cosine", peak=4e-3, warmup_steps=70)
    config.optim = dict(name="adamw", weight_decay=1e-4, learning_rate=rate)
    config.train.update(
        batch_size=64,
        num_steps=1400,
        log_every=100,
        eval_every=700,
        checkpoint_every=700,
        clip_norm=200.0,
        ema=0.0,
    )
    if variant == "inputs":
        config.model.update(num_inputs=1, controller_width=32)
    if variant == "tutorial":
        config.model.update(num_latents=40, width=64, generator_width=80, num_factors=20, hide=0.35)
        rate.update(peak=5e-3, warmup_steps=120)
        config.optim = dict(name="adamw", weight_decay=1e-4, learning_rate=rate)
        config.train.update(batch_size=100, num_steps=2400, eval_every=1200, checkpoint_every=1200)
    config.name = f"lfads-{variant}"
    return config
