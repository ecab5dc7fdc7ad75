"""One pure step, and the compiled loop over it.

    model = vi.models.vae(x.shape[1:], num_latents=20)
    step = vi.make_step(vi.losses.negative_elbo(model), optax.adam(1e-3))
    state = vi.init_state(key, model.init, optax.adam(1e-3))
    state, metrics = step(state, batch)

All randomness is a function of (key, step): a run that is stopped and resumed draws what the
unbroken one would have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vi_jax.arguments import (
    as_count,
    as_key,
    require_function,
    require_model,
    require_optimizer,
    require_rows,
)
from vi_jax.losses import Loss, Moved
from vi_jax.shard import Layout
from vi_jax.types import Array, Model, Params, num_examples, select

MAX_STEPS = 2**31 - 1  # of a run: its counter is of int32
Metrics = dict[str, Array]
Prepare = Callable[[Array, Any], Any]
Step = Callable[["State", Any], tuple["State", Metrics]]


class State(NamedTuple):
    """What is carried from step to step, a pytree of arrays."""

    step: Array  # int32, steps done
    key: Array  # the run's key; never used itself, only folded with a step or an epoch
    params: Params
    opt_state: Any
    ema: Params  # averaged parameters, or () where averaging is off
    # int32, steps left out because they were not finite; () where they are not counted
    skipped: Any = ()


class Totals(NamedTuple):
    """Sums over the steps of a block so far."""

    sums: Metrics
    norms: Array  # int32, the steps that measured `grad_norm`
    bad_step: Array
    steps: Array  # int32, all steps


class BlockInfo(NamedTuple):
    """What a block of steps reports."""

    # means over the steps done; of `grad_norm` over those that measured it, nan where none did; see
    # `make_step`
    metrics: Metrics
    # the step whose loss or measured gradient was not finite, at which the block stopped; -1 if
    # none
    bad_step: Array
    totals: Totals  # what the next part of the block goes on from, as `since`


def init_state(
    key: Array,
    init: Callable[[Array], Params],
    optimizer: optax.GradientTransformation,
    *,
    ema: bool = False,
    layout: Layout | None = None,
) -> State:
    """The state before the first step; `key` is split into one for the parameters and one for the
    run.

    Args:
      key: one typed PRNG key.
      init: key -> params, e.g. `model.init`.
      optimizer: any optax transformation.
      ema: keep averaged parameters too (give `make_step` their decay).
      layout: where the state lies (`vi_jax.shard`); one device if not given.
    """

    key = as_key(key, "init_state")
    require_function(init, "init_state", name="init")
    require_optimizer(optimizer, "init_state")

    def make(key: Array) -> State:
        key_init, key_run = jax.random.split(key)
        params = jax.tree.map(jnp.asarray, init(key_init))
        averaged = jax.tree.map(jnp.copy, params) if ema else ()
        return State(
            jnp.zeros((), jnp.int32),
            key_run,
            params,
            optimizer.init(params),
            averaged,
            jnp.zeros((), jnp.int32),
        )

    return jax.jit(make)(key) if layout is None else layout.make(make, key)


def evaluation_params(state: State) -> Params:
    """The averaged parameters where there are any, else the trained ones."""
    return state.params if isinstance(state.ema, tuple) and state.ema == () else state.ema


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
        return (
            _leave_out(state, new_state, metrics, max_skipped)
            if max_skipped
            else (new_state, metrics)
        )

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
    return new._replace(params=params, opt_state=opt_state, ema=ema, skipped=old.skipped + ~good), {
        **metrics,
        "skipped": skipped,
    }


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


def shuffle(key: Array, epoch: Array, num_examples: int) -> Array:
    """The order of an epoch, [N] int32: a function of (key, epoch) alone."""
    return jax.random.permutation(
        jax.random.fold_in(jax.random.fold_in(key, 1), epoch), num_examples
    )


def batch_rows(order: Array, position: Array | int, batch_size: int) -> Array:
    """The rows of the batch at `position` of an epoch, [batch_size].

    An epoch has ceil(N / batch_size) batches and leaves no example out; where batch_size does not
    divide N, the last batch is filled from the front of the same (random) order.
    """
    return order[(position * batch_size + jnp.arange(batch_size)) % order.shape[0]]


def on_layout(step: Step, layout: Layout | None) -> Step:
    """The same step on a mesh: whole parameters while it lasts, each device its own examples; the
    state ends by the rules.
    """
    if layout is None:
        return step

    def sharded(state: State, batch: Any) -> tuple[State, Metrics]:
        new_state, metrics = step(
            state._replace(params=layout.gather(state.params)), layout.spread(batch)
        )
        return layout.settle(new_state), layout.gather(metrics)

    return sharded


def require_batches(batch_size: int, layout: Layout | None) -> None:
    """Raises ValueError where a batch has no examples, or does not lie evenly over the devices."""
    as_count(batch_size, "batch_size")
    if layout is not None and batch_size % layout.num_shards:
        raise ValueError(
            f"a batch of {batch_size} examples does not lie evenly over {layout.num_shards} "
            "devices; take a multiple of that."
        )


def make_run(
    step: Step,
    *,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Array, int | Array], tuple[State, BlockInfo]]:
    """A compiled `run(state, data, num_steps, since=None) -> (state, BlockInfo)`: gather, step and
    sums in one program.

    `data`, a pytree of arrays [N, ...], stays on the device, in its own dtypes. The number of steps
    is an argument of the program, not a constant of it, so that blocks of any length share one
    compile; `state` is donated. A block may begin and end anywhere in an epoch. One in parts, each
    `since` the `BlockInfo.totals` of the one before, has the state and the metrics of the whole, to
    the last bit.

    Args:
      step: of `make_step`.
      batch_size: B, of all devices together.
      layout: where the state lies, the one that it was made with; `data` is whole on every device
        (`layout.replicate`).

    Raises:
      ValueError: batch_size is not positive, or no multiple of the number of devices.
    """
    require_batches(batch_size, layout)
    step = on_layout(step, layout)
    program = jax.jit if layout is None else layout.jit
    spread, whole = (
        (layout.spread, layout.gather) if layout is not None else (lambda tree: tree,) * 2
    )

    def block(
        state: State, data: Any, order: Array, num_steps: Array, since: Totals
    ) -> tuple[State, BlockInfo, Array]:
        size = num_examples(data)
        num_batches = -(-size // batch_size)
        gather = make_gather(data)

        def one(carry: tuple[State, Array, Totals]) -> tuple[State, Array, Totals]:
            state, order, totals = carry
            position = state.step % num_batches
            order = jax.lax.cond(
                position == 0,
                lambda: shuffle(state.key, state.step // num_batches, size),
                lambda: order,
            )
            batch = gather(spread(batch_rows(order, position, batch_size)))
            new_state, metrics = step(state, batch)
            return new_state, order, add_metrics(totals, metrics, state.step)

        def more(carry: tuple[State, Array, Totals]) -> Array:
            return (carry[0].step < last) & (carry[2].bad_step < 0)

        last = state.step + num_steps
        end, order, totals = jax.lax.while_loop(more, one, (state, order, since))
        return end, whole(mean_metrics(totals)), whole(order)

    compiled = program(block, donate_argnums=(0, 2))
    order_at = remembered_order(
        batch_size, program(lambda *args: whole(shuffle(*args)), static_argnums=2)
    )
    start = starting_totals(step, batch_size, layout)

    def run(
        state: State, data: Any, num_steps: int | Array, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        order, keep = order_at(state, num_examples(data))
        state, info, order = compiled(
            state, data, order, np.int32(num_steps), start(state, data) if since is None else since
        )
        keep(state, order)
        return state, info

    return run


def make_gather(data: Any) -> Callable[[Array], Any]:
    """rows [...] of integers -> those examples of data, leaves [..., *shape]; inside a program,
    leaf by leaf and flat, which is faster.
    """
    flat = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], -1), data)

    def gather(rows: Array) -> Any:
        return jax.tree.map(
            lambda row_of, leaf: row_of[rows].reshape(*rows.shape, *leaf.shape[1:]), flat, data
        )

    return gather


def remembered_order(
    batch_size: int, shuffled: Callable[..., Array]
) -> Callable[[State, int], tuple[Array, Callable[[State, Array], None]]]:
    """The order of the epoch a state is in: the one that the block before ended with, or a fresh
    shuffle of 60,000 in 30 ms.
    """
    memory: dict[tuple[int, bytes, int], Array] = {}

    def order_at(state: State, num_examples: int) -> tuple[Array, Callable[[State, Array], None]]:
        num_batches = -(-num_examples // batch_size)
        run_key = np.asarray(jax.random.key_data(state.key)).tobytes()

        def keep(end: State, order: Array) -> None:
            memory.clear()
            memory[max(int(end.step) - 1, 0) // num_batches, run_key, num_examples] = order

        epoch = int(state.step) // num_batches
        known = memory.pop((epoch, run_key, num_examples), None)
        return (
            shuffled(state.key, np.int32(epoch), num_examples) if known is None else known
        ), keep

    return order_at


def make_stepwise_run(
    step: Step,
    *,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Array, int], tuple[State, BlockInfo]]:
    """The same `run` as `make_run`, one program call a step: the same batches in the same order,
    the same draws.

    Slower by the calls, and much faster where a program's loop is slow inside: XLA runs
    `jax.lax.conv_general_dilated` in a CPU loop on one thread, at a fifth of its speed outside (the
    layers of `vi_jax.models.networks` do not need it). Goes on to the end of a block after a loss
    that was not finite, and names its step. Arguments and errors as for `make_run`.
    """
    require_batches(batch_size, layout)
    step = on_layout(step, layout)
    program = jax.jit if layout is None else layout.jit

    def one(state: State, data: Any, order: Array, totals: Totals) -> tuple[State, Totals]:
        rows = batch_rows(order, state.step % -(-num_examples(data) // batch_size), batch_size)
        new_state, metrics = step(state, jax.tree.map(lambda leaf: leaf[rows], data))
        return new_state, add_metrics(totals, metrics, state.step)

    compiled = program(one, donate_argnums=0)
    shuffled = program(shuffle, static_argnums=2)
    start = starting_totals(step, batch_size, layout)

    def run(
        state: State, data: Any, num_steps: int, since: Totals | None = None
    ) -> tuple[State, BlockInfo]:
        first = int(state.step)
        size = num_examples(data)
        num_batches = -(-size // batch_size)
        totals = start(state, data) if since is None else since
        order = None
        for number in range(first, first + int(num_steps)):
            if order is None or number % num_batches == 0:
                order = shuffled(state.key, np.int32(number // num_batches), size)
            state, totals = compiled(state, data, order, totals)
            if layout is not None:  # many host devices on few cores deadlock when steps are queued
                jax.block_until_ready(totals)
        return state, mean_metrics(totals)

    return run


def starting_totals(
    step: Step,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Any], Totals]:
    """`start(state, data)`: where the sums of a block start, zeros and no bad step; the step is
    traced for it once.
    """
    known: list[Totals] = []

    def start(state: State, data: Any) -> Totals:
        if not known:
            batch = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (batch_size, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
                ),
                data,
            )
            totals = no_metrics(step, state, batch)
            known.append(totals if layout is None else layout.replicate(totals))
        return known[0]

    return start


def no_metrics(step: Step, state: State, batch: Any) -> Totals:
    """Where sums of metrics start: zeros, and no bad step."""
    shapes = jax.eval_shape(step, state, batch)[1]
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return Totals(sums, jnp.int32(0), jnp.int32(-1), jnp.int32(0))


def add_metrics(totals: Totals, metrics: Metrics, step: Array) -> Totals:
    """Sums of metrics with those of one step, and the first step whose loss or measured gradient
    was not finite (-1 if none).
    """
    if "skipped" in metrics:  # nothing of a step that was left out counts, but that it was
        left_out = metrics["skipped"] > 0
        blank = {name: jnp.where(left_out, 0, value) for name, value in metrics.items()}
        metrics = {
            **blank,
            "grad_norm": jnp.where(left_out, -1, metrics["grad_norm"]),
            "skipped": metrics["skipped"],
        }
    norm = metrics["grad_norm"]
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    measured = norm != -1  # nan counts
    sums = jax.tree.map(
        jnp.add, totals.sums, {**metrics, "grad_norm": jnp.where(measured, norm, 0)}
    )
    bad_step = jnp.where(good | (totals.bad_step >= 0), totals.bad_step, step)
    return Totals(sums, totals.norms + measured, bad_step, totals.steps + 1)


def mean_metrics(totals: Totals) -> BlockInfo:
    """The means that a block reports, or as much of it as is done."""
    skipped = totals.sums.get("skipped")
    counted = totals.steps if skipped is None else totals.steps - skipped
    means = {name: total / jnp.maximum(counted, 1) for name, total in totals.sums.items()}
    if skipped is not None:
        means = {name: jnp.where(counted > 0, mean, jnp.nan) for name, mean in means.items()} | {
            "skipped": skipped
        }
    return BlockInfo(
        {**means, "grad_norm": totals.sums["grad_norm"] / totals.norms}, totals.bad_step, totals
    )


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
    while (done := int(state.step)) < num_steps:
        state, info = run(state, data, min(log_every, num_steps - done))
        check_finite(info)
        row = {name: float(value) for name, value in info.metrics.items()}
        history.append({"step": int(state.step), **row})
        if report is not None:
            report(int(state.step), row)
    return evaluation_params(state), history


def check_finite(info: BlockInfo) -> None:
    """Raises FloatingPointError, naming the step, where a block stopped at a loss or gradient that
    was not finite.
    """
    if (bad := int(info.bad_step)) >= 0:
        raise FloatingPointError(
            f"the loss or its gradient was not finite at step {bad}; nothing after it was "
            "computed. (Where the gradient's norm is "
            "not measured at every step, the gradient of the step before may be the first that "
            "was not.) "
            "Usual causes: a learning rate too high (halve it, or clip the gradient), or data "
            "out of the likelihood's range."
        )
