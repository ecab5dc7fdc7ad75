"""Training: one pure step, and compiled loops over it.

    model = vi.models.vae(x.shape[1:], num_latents=20)
    step = vi.make_step(vi.losses.negative_elbo(model), optax.adam(1e-3))
    state = vi.init_state(key, model.init, optax.adam(1e-3))
    state, metrics = step(state, batch)

All randomness is a function of (key, step): a run that is stopped and resumed draws what the
unbroken one would have.
"""

from vi_jax.training.batches import batch_rows, make_gather, remembered_order, shuffle
from vi_jax.training.refit import Refitted, refit_guide
from vi_jax.training.refit_normal import refit_normal
from vi_jax.training.run import make_run, on_layout, require_batches
from vi_jax.training.state import State, evaluation_params, init_state, make_init
from vi_jax.training.step import Metrics, Prepare, Step, make_step, step_key
from vi_jax.training.stepwise import make_stepwise_run
from vi_jax.training.totals import (
    BlockInfo,
    Totals,
    add_metrics,
    check_finite,
    mean_metrics,
    no_metrics,
    starting_totals,
)
from vi_jax.training.train import MAX_STEPS, train

__all__ = [
    "MAX_STEPS",
    "BlockInfo",
    "Metrics",
    "Prepare",
    "Refitted",
    "State",
    "Step",
    "Totals",
    "add_metrics",
    "batch_rows",
    "check_finite",
    "evaluation_params",
    "init_state",
    "make_gather",
    "make_init",
    "make_run",
    "make_step",
    "make_stepwise_run",
    "mean_metrics",
    "no_metrics",
    "on_layout",
    "refit_guide",
    "refit_normal",
    "remembered_order",
    "require_batches",
    "shuffle",
    "starting_totals",
    "step_key",
    "train",
]
