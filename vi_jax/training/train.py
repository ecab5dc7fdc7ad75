"""Training on arrays in memory, in one call."""

from collections.abc import Callable
from typing import Any

import optax

from vi_jax.arguments import (
    as_count,
    as_key,
    require_function,
    require_model,
    require_optimizer,
    require_rows,
)
from vi_jax.losses import Loss
from vi_jax.training.run import make_run
from vi_jax.training.state import evaluation_params, init_state
from vi_jax.training.step import Prepare, make_step
from vi_jax.training.totals import check_finite
from vi_jax.types import Array, Model, Params

MAX_STEPS = 2**31 - 1  # of a run: its counter is of int32


def train(
    key: Array,
    model: Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    num_steps: int,
    batch_size: int,
    ema_decay: float = 0.0,
    prepare: Prepare | None = None,
    log_every: int = 100,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Params, list[dict[str, float]]]:
    """Trains a model on arrays in memory: init, compiled blocks of steps, and the metrics of each
    block.

    Args:
      key: one typed PRNG key: everything random follows from it.
      model, loss, optimizer: what is trained, what is minimised, and how.
      data: an array [N, *x_shape], or a pytree of arrays [N, ...].
      num_steps, batch_size: of the whole run.
      ema_decay: return parameters averaged with this decay; 0 is off.
      prepare: see `make_step`.
      log_every: steps per block.
      report: called with the step and the block's mean metrics, e.g. to print them.

    Returns:
      The parameters, and a list with the step and the mean metrics of each block.

    Raises:
      FloatingPointError: a loss or gradient was not finite; names the step.
    """
    key = as_key(key, "train")
    require_model(model, "train")
    require_function(loss, "train", name="loss")
    require_optimizer(optimizer, "train")
    require_rows(data, "train")
    num_steps = as_count(num_steps, "num_steps", least=0, most=MAX_STEPS)
    batch_size = as_count(batch_size, "batch_size")
    log_every = as_count(log_every, "log_every")
    state = init_state(key, model.init, optimizer, ema=bool(ema_decay))
    run = make_run(
        make_step(
            loss,
            optimizer,
            ema_decay=ema_decay,
            prepare=prepare,
            grad_norm_every=min(10, log_every),
        ),
        batch_size=batch_size,
    )
    history = []
    done = 0
    while done < num_steps:
        state, info = run(state, data, min(log_every, num_steps - done))
        check_finite(info)
        done = int(state.step)
        row = {name: float(value) for name, value in info.metrics.items()}
        history.append({"step": done, **row})
        if report is not None:
            report(done, row)
    return evaluation_params(state), history
