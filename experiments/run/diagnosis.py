"""A step that was not finite, run again alone: the batch, the parameters, and the first operation
that made nan, or else infinity.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, cli, facts
from experiments.run import heartbeat, nonfinite, session
from vi_jax.checks.trace import first_bad
from vi_jax.training import step_key


def replay(config: Any, workdir: Path, step: int = -1) -> int:
    """Runs the step and prints what it finds; 0 where it is not finite, 1 where it is."""
    kept = nonfinite.recorded(workdir)
    if not kept:
        raise cli.UserError(
            f"{workdir} has kept no step that was not finite; there is nothing to run again."
        )
    if step >= 0 and step not in kept:
        raise cli.UserError(
            f"{workdir} has kept no step {step}; it has {', '.join(map(str, kept))}."
        )
    path = workdir / nonfinite.FOLDER / f"step_{step if step >= 0 else kept[-1]}.npz"
    batch = nonfinite.read_batch(path, with_labels=config.data.with_labels)
    units = build.units(config, batch.num_levels)
    try:
        model = build.model(config, facts.of_batch(config, batch))
        moment = nonfinite.read(path, session.start_state(config, model), batch)
    except (ValueError, TypeError) as error:
        raise cli.UserError(f"{path} does not fit the config of {workdir}: {error}") from None
    state = moment.state
    x = jax.tree.map(jnp.asarray, moment.batch)
    one = build.step(config, model, units, num_data=batch.num_data, grad_norm_every=1)

    with heartbeat.compiling("running the step again"):
        _, metrics = jax.jit(one)(state, x)
        numbers = {name: float(value) for name, value in metrics.items() if name != "skipped"}
    print(f"step {int(state.step):,} of {config.name}, from {path}")
    print(f"  batch        {describe_batch(moment)}")
    print(f"  parameters   {describe(state.params)}")
    print(f"  optimiser    {describe(state.opt_state)}")
    for name, value in numbers.items():
        print(f"  {name:<12} {value:.6g}")
    if np.isfinite(numbers["loss"]) and np.isfinite(numbers["grad_norm"]):
        print(
            "  it is finite here: another device, version or number of devices rounds in another "
            "way"
        )
        return 1
    with heartbeat.phase("looking for the first operation that is not finite, one by one"):
        print(f"  first        {first_line(config, model, units, moment)}")
    with heartbeat.compiling("running the step with jax_debug_nans"):
        print(f"  debug_nans   {debug_nans(one, state, x)}")
    return 0


def first_line(config: Any, model: Any, units: Any, moment: Any) -> str:
    """The first operation of the loss, or else of its gradient, that makes nan of numbers; or else
    infinity.
    """
    if not bool(nonfinite.is_finite(moment.state.params)):
        return "the parameters were not finite before this step"
    state = moment.state
    loss = build.loss(config, model, moment.num_data)
    key_prepare, key_loss = jax.random.split(jax.random.fold_in(step_key(state.key), state.step))
    stored = jax.tree.map(jnp.asarray, moment.batch)
    x = build.prepare(config, units)(key_prepare, stored)

    def value(params: Any) -> Any:
        return loss(params, key_loss, x, state.step)[0]

    for what, bad in (("nan", jnp.isnan), ("inf", jnp.isinf)):
        for where, function in (("the loss", value), ("its gradient", jax.grad(value))):
            if (origin := first_bad(function, (state.params,), bad)) is not None:
                return f"{what} in {where}: {origin}"
    return "no single operation: it overflows in the norm of the gradient, a sum of squares"


def debug_nans(step: Any, state: Any, x: Any) -> str:
    """What jax_debug_nans and jax_debug_infs say of the step."""
    try:
        with (
            jax.debug_nans(True),
            jax.debug_infs(True),
            contextlib.redirect_stdout(io.StringIO()),
        ):  # JAX prints that it looks
            jax.block_until_ready(jax.jit(step)(state, x))
    except FloatingPointError as error:
        return str(error).strip().splitlines()[0]
    return "nothing: no operation on its own gives nan or infinity"


def describe_batch(moment: Any) -> str:
    """The examples of a batch and their levels."""
    rows = moment.rows
    if moment.table is not None:
        return _describe_rows(moment)
    is_named = isinstance(moment.batch, dict)
    batch = moment.batch["image"] if is_named else moment.batch
    levels = (
        f"levels {batch.min()} to {batch.max()} of 0 to {moment.num_levels - 1}, mean "
        f"{batch.mean():.4g}"
    )
    return f"{len(batch)} examples {batch.shape[1:]}, {levels}; rows {_first(rows)}"


def _describe_rows(moment: Any) -> str:
    """The rows of a batch of a table, or its sequences, and the values that are observed."""
    values = moment.batch["values"]
    known = values[moment.batch["observed"]]
    num = values.shape[-1]
    where = np.abs(values).reshape(-1, num).max(0).argmax()
    name = moment.table.columns[where].name
    what = f"rows of {num}"
    if moment.table.num_steps:
        what = f"sequences of {values.shape[1]} steps x {num}"
    return (
        f"{len(values)} {what} columns, {known.size:,} values observed, "
        f"{known.min():.4g} to {known.max():.4g}, the largest of {name!r}; rows "
        f"{_first(moment.rows)}"
    )


def _first(rows: np.ndarray) -> str:
    """The first few rows."""
    return f"{', '.join(map(str, rows[:6]))}{', ...' if len(rows) > 6 else ''}"


def describe(tree: Any) -> str:
    """How many arrays of a tree are finite, and its largest number."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in found
    }
    arrays = {
        name: leaf
        for name, leaf in arrays.items()
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size
    }
    if not arrays:
        return "none"
    bad = [name for name, leaf in arrays.items() if not np.isfinite(leaf).all()]
    if bad:
        return (
            f"{len(bad)} of {len(arrays)} arrays are not finite: "
            f"{', '.join(bad[:4])}{', ...' if len(bad) > 4 else ''}"
        )
    name = max(arrays, key=lambda name: np.abs(arrays[name]).max())
    return f"{len(arrays)} arrays, all finite, at most {np.abs(arrays[name]).max():.3g} ({name})"
