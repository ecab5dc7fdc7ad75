"""One pure step: the gradient of a loss, an update of optax, and averaged parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vi_jax.arguments import as_count, require_function, require_optimizer
from vi_jax.losses import Loss, Moved
from vi_jax.training.state import State
from vi_jax.types import Array, Params, select

Metrics = dict[str, Array]


Prepare = Callable[[Array, Any], Any]


Step = Callable[["State", Any], tuple["State", Metrics]]


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float = 0.0,
    prepare: Prepare | None = None,
    grad_norm_every: int = 1,
    max_skipped: int = 0,
) -> Step:
    """A pure `step(state, batch) -> (state, metrics)`; jit it, scan it, shard it. A batch is a
    pytree of arrays [B, ...].

    Args:
      loss: see `vi_jax.losses`.
      optimizer: the one that made the state. What `Model.update` moves it leaves alone.
      ema_decay: of the averaged parameters; 0 where the state has none. Early on the decay is
        min(ema_decay, (1 + t) / (10 + t)).
      prepare: (key, batch) -> batch, what is drawn afresh at every step: dynamic binarisation,
        augmentation.
      grad_norm_every: steps between two measures of the gradient's norm, a pass over all parameters
        (a tenth of a small VAE's step on a CPU). A gradient that is not finite at a step between
        them shows as the loss of the next step.
      max_skipped: steps of a run that may be left out because their loss or the norm of their
        gradient is not finite: parameters, optimiser and averages stay as they were, and the next
        step has its own batch and draws. Their number is in `state.skipped`.

    Returns:
      `step`; its metrics are those of the loss, with `loss` and `grad_norm` (the global 2-norm
      before any clipping; -1 at a step that does not measure it). With max_skipped there is
      `skipped` too, 1 at a step that was left out and 0 at others; a block reports their number,
      and its means are over the steps that were not left out, nan where there are none.

    Raises:
      ValueError: grad_norm_every is not positive, or not 1 where steps may be left out.
    """
    require_function(loss, "make_step", name="loss")
    require_optimizer(optimizer, "make_step")
    grad_norm_every = as_count(grad_norm_every, "grad_norm_every")
    max_skipped = as_count(max_skipped, "max_skipped", least=0)
    if max_skipped and grad_norm_every != 1:
        raise ValueError(
            "steps are left out by the norm of every gradient: grad_norm_every has to be 1; got "
            f"{grad_norm_every}."
        )

    def norm_at(number: Array, gradient: Params) -> Array:
        if grad_norm_every == 1:
            return _norm(gradient)
        norm = jax.eval_shape(_norm, gradient)
        return jax.lax.cond(
            number % grad_norm_every == 0,
            _norm,
            lambda _: jnp.full(norm.shape, -1, norm.dtype),
            gradient,
        )

    def step(state: State, batch: Any) -> tuple[State, Metrics]:
        key_prepare, key_loss = jax.random.split(
            jax.random.fold_in(step_key(state.key), state.step)
        )
        x = batch if prepare is None else prepare(key_prepare, batch)
        (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, key_loss, x, state.step
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, info.params)
        params = _keep_moved(optax.apply_updates(info.params, updates), info.params, info.moved)
        averaged = state.ema
        if ema_decay:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            averaged = jax.tree.map(
                lambda old, new: old + (1.0 - decay).astype(old.dtype) * (new - old),
                averaged,
                params,
            )
        metrics = {"loss": value, "grad_norm": norm_at(state.step, gradient), **info.metrics}
        new_state = State(state.step + 1, state.key, params, opt_state, averaged, state.skipped)
        if max_skipped:
            return _leave_out(state, new_state, metrics, max_skipped)
        return new_state, metrics

    return step


def _leave_out(old: State, new: State, metrics: Metrics, max_skipped: int) -> tuple[State, Metrics]:
    """The new state where loss and gradient are finite, else the old one at the next step; up to
    max_skipped it counts so.
    """
    if isinstance(old.skipped, tuple):
        raise ValueError(
            "steps are left out of a state that counts them: make it with init_state, or set "
            "skipped=jnp.int32(0)."
        )
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    params, opt_state, ema = select(
        good, (new.params, new.opt_state, new.ema), (old.params, old.opt_state, old.ema)
    )
    skipped = (~good & (old.skipped < max_skipped)).astype(jnp.int32)
    kept = new._replace(params=params, opt_state=opt_state, ema=ema, skipped=old.skipped + ~good)
    return kept, {**metrics, "skipped": skipped}


def _keep_moved(params: Params, updated: Params, moved: Moved) -> Params:
    """The parameters, with the leaves that the model updates itself as it left them: no optimiser
    and no weight decay touches them (their gradient is 0).
    """
    if not moved.leaves:
        return params
    leaves, structure = jax.tree.flatten(params)
    kept = [
        own if has_moved else leaf
        for leaf, own, has_moved in zip(leaves, jax.tree.leaves(updated), moved.leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def _norm(tree: Params) -> Array:
    """The global 2-norm, by inner products: a CPU takes those on all cores, where a sum of squares
    is one more slow pass.
    """
    return jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in map(jnp.ravel, jax.tree.leaves(tree))))


def step_key(key: Array) -> Array:
    """The key that steps fold their number into."""
    return jax.random.fold_in(key, 0)
