"""Sums and means of metrics over a block of steps, and the first step that was not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.shard import Layout, as_layout
from vi_jax.training.state import State
from vi_jax.training.step import Metrics, Step
from vi_jax.types import Array


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


def starting_totals(
    step: Step,
    batch_size: int,
    layout: Layout | None = None,
) -> Callable[[State, Any], Totals]:
    """`start(state, data)`: where the sums of a block start, zeros and no bad step; the step is
    traced for it once.
    """
    layout = as_layout(layout)
    known: list[Totals] = []

    def start(state: State, data: Any) -> Totals:
        if not known:
            batch = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    (batch_size, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
                ),
                data,
            )
            known.append(layout.replicate(no_metrics(step, state, batch)))
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


def check_finite(info: BlockInfo) -> None:
    """Raises FloatingPointError, naming the step, where a block stopped at a loss or gradient that
    was not finite.
    """
    bad = int(info.bad_step)
    if bad >= 0:
        raise FloatingPointError(
            f"the loss or its gradient was not finite at step {bad}; nothing after it was "
            "computed. (Where the gradient's norm is "
            "not measured at every step, the gradient of the step before may be the first that "
            "was not.) "
            "Usual causes: a learning rate too high (halve it, or clip the gradient), or data "
            "out of the likelihood's range."
        )
