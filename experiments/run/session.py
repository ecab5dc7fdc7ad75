"""What the commands share once a config is known: data, model, evaluations, and the run itself."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import build, evals, facts, sweep, terminal
from experiments.build import Units
from experiments.cli import UserError
from experiments.data import Ahead, DataError, Dataset, Split, load, report_of
from experiments.data.labelled import with_few_labels
from experiments.evals import Meter, Subject
from experiments.run import heartbeat, processes, saved
from experiments.run.checkpoints import Checkpoints
from experiments.run.contents import CHECKPOINTS, CONFIG
from experiments.run.kinds import note_probabilities, require_kind
from experiments.run.streaming import MOST_STEPS, make_streaming_run
from vi_jax.shard import ALONE, Layout
from vi_jax.training import State, evaluation_params, make_init


class Keys(NamedTuple):
    """One key for each purpose, from config.seed."""

    train: jax.Array
    evaluate: jax.Array
    pictures: jax.Array


class Built(NamedTuple):
    """All that a config stands for; below this nothing asks the config for a name."""

    config: Any
    keys: Keys
    dataset: Dataset
    units: Units
    model: vi.Model
    x: Any  # the evaluated split as the model takes it, leaves [N, ...]
    labels: np.ndarray | None  # of it
    meter: Meter

    @property
    def subject(self) -> Subject:
        """What the evaluations look at."""
        return _subject(self.config, self.dataset, self.units, self.model)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of one example's image, or the columns of a row."""
        return self.dataset.x_shape


def build_all(config: Any, dataset: Dataset | None = None) -> Built:
    """Loads the data of a config and builds its model and evaluations.

    Raises:
      UserError: the data cannot be had, or do not fit the model or its objective.
    """
    dataset = dataset or load_data(config)
    require_kind(config, dataset)
    units = build.units(config, dataset.num_levels)
    note_probabilities(config, dataset, units)
    model = make_model(config, dataset)
    x, labels = evaluation_set(config, dataset, config.eval.split)
    meter = evals.make_meter(_subject(config, dataset, units, model), evals.METERS)
    for name, reason in meter.skipped.items():
        if name not in evals.OPTIONAL:
            terminal.say(f"note: no evaluation of {name}: {reason}.")
    return Built(config, keys(config), dataset, units, model, x, labels, meter)


def _subject(config: Any, dataset: Dataset, units: Units, model: vi.Model) -> Subject:
    """What the evaluations look at."""
    kinds = () if dataset.table is None else tuple(dataset.table.kinds)
    part = evaluated_split(config, dataset, config.eval.split)
    is_sequences = bool(dataset.num_steps)
    return Subject(model, config, units, part.factors, kinds, is_sequences, part.truth)


def keys(config: Any) -> Keys:
    """The keys of a run, all of the kind config.prng."""
    return Keys(*jax.random.split(jax.random.key(config.seed, impl=config.prng), 3))


def key_at(key: jax.Array, step: int) -> jax.Array:
    """The key of a purpose at a step."""
    return jax.random.fold_in(key, step)


def make_model(config: Any, dataset: Dataset) -> vi.Model:
    """The model of a config for a data set; what does not fit is a UserError."""
    with heartbeat.phase("looking at the training examples"):
        known = facts.of_data(config, dataset)
    return build.model(config, known)


def load_data(config: Any, ahead: Ahead[Dataset] | None = None) -> Dataset:
    """The data set of a config, where it has been begun that of `ahead`; what is wrong with it is a
    UserError.
    """
    try:
        with heartbeat.phase(f"reading the data set {config.data.name}"):
            dataset = load(config.data) if ahead is None else ahead.result()
            return with_few_labels(dataset, config.data)
    except DataError as error:
        raise UserError(str(error)) from None


def say_report(config: Any, dataset: Dataset) -> None:
    """What was found in the data, from the first process, on stderr."""
    for line in report_of(dataset, config.data):
        processes.say(f"data: {line}")


def examples(config: Any, split: Split) -> Any:
    """The examples of a split as they are stored: images [N, *x_shape], or with
    config.data.with_labels a dictionary of `image` and `label`; or the dictionary of a table.

    Raises:
      UserError: labels are asked for, and the data have none, or are a table.
    """
    if not config.data.with_labels:
        return split.x
    if isinstance(split.x, dict):
        raise UserError(
            "config.data.with_labels is of images; a table is given the columns that "
            "config.data.covariates names."
        )
    if split.labels is None:
        raise UserError(
            "config.data.with_labels is True and the data have no labels; set it to False, or add "
            "labels to the data."
        )
    images = split.x[np.arange(split.num)]
    return {"image": images, "label": np.asarray(split.labels, np.int32)}


def evaluation_set(config: Any, dataset: Dataset, split: str) -> tuple[Any, np.ndarray | None]:
    """x, leaves [N, ...], of a split, binarised once by config.data.static_seed where training does
    so afresh, and its labels.
    """
    part = evaluated_split(config, dataset, split)
    with heartbeat.phase(f"reading the {split} split"):
        x = make_evaluation_rows(config, dataset)(part, slice(None))
    return x, part.labels


def make_evaluation_rows(config: Any, dataset: Dataset) -> Callable[..., Any]:
    """A function (split, rows, number=None) -> some rows of a split, as `evaluation_set` has all of
    them; the number tells apart the draws of several parts.
    """
    prepare = jax.jit(build.prepare(config, build.units(config, dataset.num_levels)))

    def evaluation_rows(split: Split, rows: slice, number: int | None = None) -> Any:
        some = examples(config, split)
        stored = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf[rows])), some)
        key = jax.random.key(config.data.static_seed)
        x = prepare(key if number is None else jax.random.fold_in(key, number), stored)
        if isinstance(x, dict) and "has_label" in x:  # what is evaluated infers its labels
            x = {**x, "has_label": jnp.zeros(x["has_label"].shape, bool)}
        return x

    return evaluation_rows


def evaluated_split(config: Any, dataset: Dataset, split: str) -> Split:
    """The split of a name; raises UserError where it is empty or of one example."""
    part: Split | None = getattr(dataset, split)
    if part is None:
        raise UserError(f"config.data.{split} is empty; name a split, or evaluate on another.")
    if part.num < 2:
        raise UserError(
            f"the {split} split has {part.num} example; a standard error needs at least 2."
        )
    return part


def make_run(built: Built, layout: Layout) -> tuple[Any, Any]:
    """The `run` of a config, and what it goes over: the training examples on the devices where they
    fit, else on the host.
    """
    config = built.config
    num_data = built.dataset.train.num
    step = build.step(config, built.model, built.units, num_data=num_data)
    data = examples(config, built.dataset.train)
    size = built.dataset.train.nbytes
    fits = size <= config.data.device_limit_mb * 2**20
    if not fits and config.data.with_labels:
        raise UserError(
            f"the training images take {size / 2**20:,.0f} MB, more than config.data."
            "device_limit_mb, and with_labels is of data on the device; raise the limit."
        )
    on_device = {"compiled": vi.make_run, "stepwise": vi.make_stepwise_run}[config.train.loop]
    most_steps = min(MOST_STEPS, config.train.log_every) if config.train.loop == "compiled" else 1
    streamed: Any = partial(make_streaming_run, most_steps=most_steps)
    make: Any = on_device if fits else streamed
    run = make(step, batch_size=config.train.batch_size, layout=layout)
    return run, on_devices(data, layout) if fits else data


def on_devices(data: Any, layout: Layout) -> Any:
    """Training examples, leaves [N, ...], whole on every device."""
    with heartbeat.phase("reading the training examples"):
        stored = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf[:])), data)
    return layout.replicate(stored)


def start_state(config: Any, model: vi.Model, layout: Layout = ALONE) -> State:
    """The state before the first step."""
    with heartbeat.compiling("initialising the parameters"):
        return layout.make(_init_of(config, model), keys(config).train)


def start_states(configs: Sequence[Any], model: vi.Model) -> list[State]:
    """The same of runs that differ in their keys and rates alone, by one program."""
    make = _init_of(configs[0], model)
    with heartbeat.compiling("initialising the parameters"):
        return [ALONE.make(make, keys(each).train) for each in configs]


def _init_of(config: Any, model: vi.Model) -> Callable[[jax.Array], State]:
    return make_init(model.init, build.optimizer(config), ema=bool(config.train.ema))


def require_checkpoint(config: Any, workdir: Path, which: str) -> None:
    """Raises UserError where a run has no checkpoint of that name, before anything is read for it;
    whether one is the best, or damaged, is seen when it is read.
    """
    if sweep.is_several(config):
        raise UserError(
            f"{workdir} holds replicas, each a run of its own: name one, such as "
            f"--workdir={workdir / 'replica_0'}."
        )
    folder = workdir / CHECKPOINTS
    steps = saved.open_steps(folder, read_only=True) if folder.is_dir() else []
    if not steps:
        raise _no_checkpoint(workdir)
    if which not in ("latest", saved.BEST):
        saved.step_named(which, folder, steps, None)


def _no_checkpoint(workdir: Path) -> UserError:
    return UserError(
        f"{workdir} has no checkpoint yet; train first, with python -m experiments.train "
        f"--config=configs/replay.py:{workdir / CONFIG} --workdir={workdir}."
    )


def trained_params(
    config: Any, model: vi.Model, workdir: Path, which: str = "latest"
) -> tuple[vi.types.Params, int]:
    """The parameters that evaluation uses, of a checkpoint (`latest`: the newest good one; `best`;
    a step), and its step; raises UserError as `require_checkpoint` does, or where it is damaged.
    """
    require_checkpoint(config, workdir, which)
    folder = workdir / CHECKPOINTS
    with (
        heartbeat.phase(f"reading a checkpoint of {workdir}"),
        Checkpoints(folder, keep=config.train.keep_checkpoints, read_only=True) as checkpoints,
    ):
        state = checkpoints.restore(which, start_state(config, model))
    if state is None:
        raise _no_checkpoint(workdir)
    step = int(state.step)
    if step < config.train.num_steps:
        what = "this run is at" if which == "latest" else "this is the checkpoint of"
        terminal.say(f"note: {what} step {step:,} of {config.train.num_steps:,}.")
    return evaluation_params(state), step
