"""`objective.estimator=auto`: the valid gradient estimators are measured on a batch, and the one of
the least variance x time is taken.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import vi_jax as vi
from experiments import build, rooms, settings
from experiments.choices import NAME
from experiments.cli import UserError
from experiments.data import Ahead, Dataset
from experiments.run import heartbeat, processes, session
from experiments.run.record import read_json
from vi_jax import files
from vi_jax.attributes import attribute
from vi_jax.losses.info import Loss

TABLE = "estimators.json"  # of the run folder
FIELD = settings.ESTIMATOR
AUTO = settings.AUTO
WARM_STEPS = 100  # of Adam before anything is measured: noise at the start is not that of training
NUM_GRADIENTS = 50  # of one batch, for the variance
NUM_TIMED = 10
MAX_BATCH = 100


class Measured(NamedTuple):
    """One estimator on a batch."""

    name: str
    variance: float  # the trace of the covariance of a gradient of the mean over the batch
    seconds: float  # of one gradient
    refused: str = ""  # why it is not valid here

    @property
    def cost(self) -> float:
        """Variance x time: what as many gradients as fit into a second leave, up to a factor."""
        return self.variance * self.seconds


def settle(
    config: Any,
    workdir: Path,
    *,
    overwrite: bool = False,
    ahead: Ahead[Dataset] | None = None,
) -> list[Measured]:
    """Sets the estimator of a config that leaves it open: that of the run in the folder, if there
    is one, else the best of those measured, which are returned.

    Raises:
      UserError: the data or the model cannot be had, no estimator is valid, or several processes
        train, whose clocks differ.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"config.{FIELD} is {AUTO}, which one process measures; train some steps with one, and "
            "give the name that it chooses."
        )
    if files.kind(workdir / TABLE) and not overwrite:
        chosen = read_json(workdir / TABLE)["chosen"]
        processes.say(f"{FIELD}={AUTO}: the run in {workdir} goes on with {chosen}")
        settings.change(config, {FIELD: {NAME: chosen}})
        return []
    found = measure(config, ahead)
    valid = [each for each in found if not each.refused]
    if not valid:
        raise UserError(
            f"config.{FIELD} is {AUTO}, and none is valid for this bound and model: "
            + "; ".join(f"{each.name}: {each.refused}" for each in found)
        )
    chosen = min(valid, key=lambda each: each.cost).name
    for line in table(found, chosen):
        processes.say(line)
    settings.change(config, {FIELD: {NAME: chosen}})
    return found


def write(found: list[Measured], config: Any, workdir: Path) -> None:
    """The table, into the run folder."""
    rows = [{**each._asdict(), "cost": each.cost} for each in found if not each.refused]
    refused = {each.name: each.refused for each in found if each.refused}
    chosen = config.objective.estimator[NAME]
    files.write_json(workdir / TABLE, {"chosen": chosen, "measured": rows, "refused": refused})


def measure(config: Any, ahead: Ahead[Dataset] | None = None) -> list[Measured]:
    """Every unbiased estimator of the library on one batch of the run's data."""
    dataset = session.load_data(config, ahead)
    model = session.make_model(config, dataset)
    rows = slice(0, min(config.train.batch_size, MAX_BATCH, dataset.train.num))
    batch = session.make_evaluation_rows(config, dataset)(dataset.train, rows)
    names = [
        name
        for name in rooms.ESTIMATOR.all_names()
        if attribute(getattr(vi.estimators, name), "unbiased", True)
    ]
    losses: dict[str, Loss | str] = {name: _loss(config, model, name) for name in names}
    params = _warm(config, model, losses, batch)
    found = []
    for name, loss in losses.items():
        with heartbeat.phase(f"measuring the estimator {name}"):
            found.append(_measured(config, name, loss, params, batch))
    return found


def _loss(config: Any, model: vi.Model, name: str) -> Loss | str:
    """The objective under one estimator, or why there is none."""
    tried = config.copy_and_resolve_references()
    settings.change(tried, {FIELD: {NAME: name}})
    try:
        return build.loss(tried, model)
    except UserError as error:
        return str(error)


def _warm(config: Any, model: vi.Model, losses: dict[str, Loss | str], batch: Any) -> Any:
    """Parameters after some steps on the batch, by the first estimator that is valid."""
    key_init, key_steps = jax.random.split(session.keys(config).train)
    start = model.init(key_init)
    optimiser = optax.adam(1e-3)
    for loss in losses.values():
        if isinstance(loss, str):
            continue

        def step(carry: Any, key: jax.Array, loss: Loss = loss) -> Any:
            (params, state) = carry
            slope = _gradient(loss, params, key, batch)
            (moves, state) = optimiser.update(slope, state, params)
            return (optax.apply_updates(params, moves), state), None

        keys = jax.random.split(key_steps, WARM_STEPS)
        try:
            return jax.jit(lambda keys: jax.lax.scan(step, (start, optimiser.init(start)), keys))(
                keys
            )[0][0]
        except (TypeError, ValueError):  # `_measured` says why
            continue
    return start


def _gradient(loss: Loss, params: Any, key: jax.Array, batch: Any) -> Any:
    return jax.grad(lambda params: loss(params, key, batch, jnp.int32(0))[0])(params)


def _measured(config: Any, name: str, loss: Loss | str, params: Any, batch: Any) -> Measured:
    """The variance and the seconds of one estimator."""
    if isinstance(loss, str):
        return Measured(name, math.nan, math.nan, loss)
    key = jax.random.fold_in(session.keys(config).evaluate, 0)

    @jax.jit
    def gradients(keys: jax.Array) -> Any:
        return jax.lax.map(lambda key: _gradient(loss, params, key, batch), keys)

    @jax.jit
    def one(key: jax.Array) -> Any:
        return _gradient(loss, params, key, batch)

    try:
        found = gradients(jax.random.split(key, NUM_GRADIENTS))
    except (TypeError, ValueError) as error:
        return Measured(name, math.nan, math.nan, str(error).split("\n")[0])
    variance = sum(float(leaf.var(0, ddof=1).sum()) for leaf in jax.tree.leaves(found))
    if not math.isfinite(variance):
        return Measured(name, math.nan, math.nan, "its gradients on the batch are not finite")
    return Measured(name, variance, _seconds(one, key))


def _seconds(one: Callable[[jax.Array], Any], key: jax.Array) -> float:
    """The median of some calls, after the one that compiles."""
    jax.block_until_ready(one(key))
    took = []
    for _ in range(NUM_TIMED):
        began = time.perf_counter()
        jax.block_until_ready(one(key))
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def table(found: list[Measured], chosen: str) -> list[str]:
    """What was measured, and what was chosen, in lines."""
    valid = sorted((each for each in found if not each.refused), key=lambda each: each.cost)
    size = len(max((each.name for each in valid), key=len))
    least = max(valid[0].cost, sys.float_info.min)  # an estimator may have no noise at all
    lines = ["estimators on a batch: variance of a gradient, ms, variance x time over the least"]
    lines += [
        f"  {each.name:<{size}}  {each.variance:>10.4g}  {1e3 * each.seconds:>7.2f}  "
        f"{each.cost / least:>7.2f}"
        for each in valid
    ]
    others = ", ".join(each.name for each in found if each.refused)
    return [*lines, f"  not valid here: {others or 'none'}", f"{FIELD} is {chosen} now"]
