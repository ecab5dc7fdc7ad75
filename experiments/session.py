"""What the three commands share once a config is known: the data as the model wants them, the
model, and a run that is trained.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import build, heartbeat
from experiments.checkpoints import Checkpoints
from experiments.cli import UserError
from experiments.data import DataError, Dataset, Split, load
from experiments.streaming import MOST_STEPS, make_streaming_run
from vi_jax.shard import Layout
from vi_jax.training import State, evaluation_params, require_batches


class Keys(NamedTuple):
    """One key for each purpose, from config.seed."""

    train: jax.Array
    evaluate: jax.Array
    pictures: jax.Array


def keys(config: Any) -> Keys:
    """The keys of a run, all of the kind config.prng."""
    return Keys(*jax.random.split(jax.random.key(config.seed, impl=config.prng), 3))


def key_at(key: jax.Array, step: int) -> jax.Array:
    """The key of a purpose at a step."""
    return jax.random.fold_in(key, step)


def load_data(config: Any) -> Dataset:
    """The data set of a config; what is wrong with it is a UserError."""
    try:
        with heartbeat.phase(f"reading the data set {config.data.name}"):
            return load(config.data)
    except DataError as error:
        raise UserError(str(error)) from None


def make_model(config: Any, dataset: Dataset) -> vi.Model:
    """The model of a config for a data set; what does not fit is a UserError."""
    x_shape = tuple(dataset.train.images.shape[1:])
    if (
        config.model.likelihood == "bernoulli"
        and config.data.binarisation == "none"
        and dataset.num_levels > 2
    ):
        print(
            "note: grey levels under a Bernoulli likelihood are read as probabilities: the ELBO "
            "is the mean over binary images.",
            file=sys.stderr,
        )
    try:
        with heartbeat.phase("averaging the training images"):
            mean = _mean_image(dataset)
        return build.model(config, x_shape, dataset.num_levels, mean)
    except ValueError as error:
        raise UserError(f"this model does not fit the data of {dataset.name}: {error}") from None


def evaluation_set(
    config: Any, dataset: Dataset, split: str
) -> tuple[jax.Array, np.ndarray | None]:
    """x [N, *x_shape] of a split, binarised once by config.data.static_seed where training does so
    afresh, and its labels.
    """
    part: Split | None = getattr(dataset, split)
    if part is None:
        raise UserError(f"config.data.{split} is empty; name a split, or evaluate on another.")
    if len(part.images) < 2:
        raise UserError(
            f"the {split} split has {len(part.images)} example; a standard error wants at least 2."
        )
    with heartbeat.phase(f"reading the {split} split"):
        levels = jnp.asarray(part.images[np.arange(len(part.images))])
        prepare = build.prepare(config, dataset.num_levels)
        return jax.jit(prepare)(jax.random.key(config.data.static_seed), levels), part.labels


def make_layout(config: Any, *, cuts_batches: bool = True) -> Layout | None:
    """Where the arrays of a run lie, from config.mesh; None on one device. `cuts_batches`: over its
    devices.

    Raises:
      UserError: the devices do not fit the mesh, or a batch does not lie evenly over them.
    """
    sizes = (config.mesh.data, config.mesh.model)
    devices = jax.devices()
    if (
        -1 not in sizes
        and jax.process_count() == 1
        and (wanted := sizes[0] * sizes[1]) < len(devices)
    ):
        print(f"note: config.mesh takes {wanted} of {len(devices)} devices.", file=sys.stderr)
        devices = devices[:wanted]
    try:
        mesh = vi.shard.make_mesh(*sizes, devices=devices)
        layout = vi.shard.make_layout(mesh)
        require_batches(config.train.batch_size, layout if cuts_batches else None)
    except ValueError as error:
        raise UserError(f"config.mesh and config.train.batch_size: {error}") from None
    return layout if mesh.size > 1 else None


def describe(layout: Layout) -> str:
    """The mesh, in a line."""
    sizes = " x ".join(f"{axis} {size}" for axis, size in layout.mesh.shape.items())
    count = jax.process_count()
    return f"on {layout.num_shards} devices, {sizes}" + (
        f", in {count} processes" if count > 1 else ""
    )


def make_run(
    config: Any, model: vi.Model, dataset: Dataset, layout: Layout | None
) -> tuple[Any, Any]:
    """The `run` of a config, and what it goes over: the training examples on the devices where they
    fit, else on the host.
    """
    step = build.step(config, model, dataset.num_levels)
    images = dataset.train.images
    fits = images.nbytes <= config.data.device_limit_mb * 2**20
    on_device = {"compiled": vi.make_run, "stepwise": vi.make_stepwise_run}[config.train.loop]
    most_steps = min(MOST_STEPS, config.train.log_every) if config.train.loop == "compiled" else 1
    streamed: Any = partial(make_streaming_run, most_steps=most_steps)
    run: Any = (on_device if fits else streamed)(
        step, batch_size=config.train.batch_size, layout=layout
    )
    return run, on_devices(images, layout) if fits else images


def on_devices(images: Any, layout: Layout | None) -> jax.Array:
    """Training examples, whole on every device."""
    with heartbeat.phase("reading the training images"):
        levels = np.asarray(images[:])
    return jnp.asarray(levels) if layout is None else layout.replicate(jnp.asarray(levels))


def whole_params(state: State, layout: Layout | None) -> vi.types.Params:
    """The parameters that evaluation uses, on one device."""
    return evaluation_params(state) if layout is None else layout.fetch(evaluation_params(state))


def start_state(config: Any, model: vi.Model, layout: Layout | None = None) -> State:
    """The state before the first step."""
    ema = bool(config.optim.ema)
    with heartbeat.compiling("initialising the parameters"):
        return vi.init_state(
            keys(config).train, model.init, build.optimizer(config), ema=ema, layout=layout
        )


def trained_params(
    config: Any, model: vi.Model, workdir: Path, which: str = "latest"
) -> tuple[vi.types.Params, int]:
    """The parameters that evaluation uses, of a checkpoint (`latest`: the newest good one; `best`;
    a step), and its step.
    """
    if config.replicas > 1 or config.sweep.learning_rates:
        raise UserError(
            f"{workdir} holds replicas, each a run of its own: name one, such as "
            f"--workdir={workdir / 'replica_0'}."
        )
    folder = workdir / "checkpoints"
    state = None
    if folder.is_dir():
        with (
            heartbeat.phase(f"reading a checkpoint of {workdir}"),
            Checkpoints(folder, keep=config.train.keep_checkpoints, read_only=True) as checkpoints,
        ):
            state = (
                checkpoints.restore(which, start_state(config, model))
                if checkpoints.steps
                else None
            )
    if state is None:
        raise UserError(
            f"{workdir} has no checkpoint yet; train with experiments.train --workdir={workdir} "
            "first."
        )
    step = int(state.step)
    if step < config.train.num_steps:
        what = "this run is at" if which == "latest" else "this is the checkpoint of"
        print(f"note: {what} step {step:,} of {config.train.num_steps:,}.", file=sys.stderr)
    return evaluation_params(state), step


def _mean_image(dataset: Dataset) -> np.ndarray:
    images = dataset.train.images[np.arange(min(len(dataset.train.images), 60_000))]
    return images.mean(0, dtype=np.float64) / (dataset.num_levels - 1)
