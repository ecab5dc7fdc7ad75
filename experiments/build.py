"""From a config to what a run is made of; the only place where a name becomes a function."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vi_jax as vi
from experiments import rooms
from experiments.choices import NAME, as_choice, find, load
from experiments.cli import UserError
from experiments.overrides import flatten
from experiments.rooms import ROOMS
from vi_jax.attributes import attribute
from vi_jax.training import State

PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}
FLOWS = {"iaf", "maf", "neural_spline", "planar", "radial", "real_nvp", "sylvester"}
COVARIANCES = {"full_rank", "linearised", "linearised_encoder"}  # families, and guides of tables
METRICS = {  # of objectives that have no bound's name
    **dict.fromkeys(("full_vb", "mcem", "mmd", "negative_elbo", "total_correlation"), "elbo"),
    **dict.fromkeys(("wake_sleep", "wake_wake"), "iwae"),
}
MINUS_LOSS = "-loss"
DROPPED = "objective"  # what negative_elbo calls its value under `Model.train_terms`
WHOLE = ("levels", "count")  # supports that are whole numbers
IMAGES = "images"  # what a model's data are
TABLES = "tables"
SEQUENCES = "sequences"
GRAD_NORM_EVERY = 10  # steps; see `vi.make_step`


class Units(NamedTuple):
    """How pixel values become what the likelihood is of, and are shown again."""

    support: str  # "binary", "unit" or "levels"; "table" of tables and sequences, which pass
    num_levels: int

    @property
    def scale(self) -> float:
        """x times this is in [0, 1]."""
        return 1.0 / (self.num_levels - 1) if self.support in WHOLE else 1.0


def sizes(config: Any) -> dict[str, Any]:
    """The facts that need no data."""
    return {
        "total_steps": config.train.num_steps,
        "dtype": PRECISIONS[config.precision],
        "num_labels": max(config.data.num_labels, 1),
        "label_copies": config.data.label_copies,
    }


def model(
    config: Any, known: dict[str, Any], numbers: Mapping[str, jax.Array] | None = None
) -> vi.Model:
    """The model of a config, given the facts of its data, as its objective trains it; `numbers` are
    traced arguments that take the place of the config's.

    Raises:
      UserError: the config or the data do not fit it.
    """
    choice = {**config.model, **(numbers or {})}
    built = ROOMS.build(rooms.MODEL, choice, where="config.model", facts=known)
    objective = load(rooms.OBJECTIVE, config.objective[NAME], "config.objective")
    of_model = attribute(objective, "of_model")  # such as one with a posterior over its weights
    try:
        return built if of_model is None else of_model(built)
    except ValueError as error:
        raise UserError(f"config.objective: {error}") from error


class Traits(NamedTuple):
    """What the names in a config say of the size of its arrays, for a guess without a trace."""

    is_by_level: bool  # p(x | z) has a number for each level of a pixel
    convolves: bool  # a network has its widths at every pixel
    flows: bool  # the guide has layers of its own
    has_covariance: bool  # the encoder returns a covariance of all latents


def traits(config: Any, num_levels: int) -> Traits:
    """The traits of a config's model; those of a user's own functions are not known."""
    fields = flatten(config.model.to_dict())
    words = {value for value in fields.values() if isinstance(value, str)}
    return Traits(
        is_by_level=units(config, num_levels).support == "levels",
        convolves="conv" in words,
        flows=bool(words & FLOWS),
        has_covariance=bool(words & COVARIANCES),
    )


def loss(config: Any, the_model: vi.Model, num_data: int | None = None) -> vi.losses.Loss:
    """What is minimised: config.objective of a model, and of N training examples where it asks."""
    known = sizes(config)
    if num_data is not None:
        known["num_data"] = num_data
    objective = ROOMS.build(
        rooms.OBJECTIVE, config.objective, where="config.objective", facts=known
    )
    names = find(rooms.OBJECTIVE, config.objective[NAME], "config.objective").parameters
    extra = {"name": metric_name(config, the_model)} if "name" in names else {}
    try:
        return objective(the_model, **extra)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"config.objective: {error}") from error


def metric_name(config: Any, the_model: vi.Model) -> str:
    """What is maximised is called this in the metrics: the bound's own name where the objective
    has one, `objective` where the model trains with dropout and it is no bound; minus the loss of
    an objective that is not ours, see `maximised`.
    """
    bound = config.objective.get("bound")
    if config.objective[NAME] == "negative_elbo" and the_model.train_terms is not None:
        return DROPPED
    if bound is None:
        return METRICS.get(config.objective[NAME], MINUS_LOSS)
    name = as_choice(bound, rooms.BOUND, "config.objective.bound")[NAME]
    return name.rpartition(":")[2]


def maximised(metrics: Mapping[str, Any], name: str) -> Any:
    """The metric of `metric_name`."""
    return -metrics["loss"] if name == MINUS_LOSS else metrics[name]


def beta(config: Any) -> vi.losses.Schedule | None:
    """The weight of the KL over the steps, where the objective has one for all sites."""
    value = config.objective.get("beta")
    if isinstance(value, int | float):
        return vi.losses.as_schedule(value)
    if value is None or NAME not in value:
        return None
    where = "config.objective.beta"
    return ROOMS.build(rooms.SCHEDULE, value, where=where, facts=sizes(config))


def takes(config: Any, field: str, argument: str) -> bool:
    """Whether the function that a choice of a config names has an argument."""
    *_, last = field.split(".")
    room = rooms.CHOICES.get(last) or ROOMS.by_argument[last]
    value = config
    for part in field.split("."):
        value = value.get(part)
        if value is None:
            return False
    choice = as_choice(value, room, f"config.{field}")
    return argument in find(room, choice[NAME], f"config.{field}").parameters


def data_of_model(config: Any) -> tuple[str, str, bool]:
    """The name of the model, what its data are by the facts that it asks for (IMAGES, TABLES or
    SEQUENCES), and whether it is ours.
    """
    name = config.model[NAME]
    kind = IMAGES
    if takes(config, "model", "columns"):
        kind = SEQUENCES if takes(config, "model", "max_steps") else TABLES
    return name, kind, name in rooms.MODEL.all_names()


def learning_rate(config: Any) -> optax.Schedule:
    """Steps -> learning rate."""
    value = config.optim.learning_rate
    if isinstance(value, int | float):
        return optax.constant_schedule(value)
    where = "config.optim.learning_rate"
    return ROOMS.build(rooms.SCHEDULE, value, where=where, facts=sizes(config))


def peak_rate(config: Any) -> float:
    """The learning rate, or the highest of its schedule.

    Raises:
      UserError: the schedule has no argument `peak`, so that a sweep over rates means nothing.
    """
    value = config.optim.learning_rate
    if isinstance(value, int | float):
        return float(value)
    if "peak" not in value:
        raise UserError(
            "config.replicas and config.sweep.learning_rates scale config.optim.learning_rate by "
            f"its `peak`, which {value[NAME]} has not; take a number, constant, cosine or linear."
        )
    return float(value["peak"])


def set_peak_rate(config: Any, rate: float) -> None:
    """Sets it, in an unlocked config."""
    if isinstance(config.optim.learning_rate, int | float):
        config.optim.learning_rate = rate
    else:
        config.optim.learning_rate.peak = rate


def optimizer(config: Any) -> optax.GradientTransformation:
    """config.optim, after the clipping of config.train.clip_norm."""
    rule = ROOMS.build(rooms.OPTIMISER, config.optim, where="config.optim", facts=sizes(config))
    clip = config.train.clip_norm
    return optax.chain(optax.clip_by_global_norm(clip), rule) if clip else rule


def step(
    config: Any,
    the_model: vi.Model,
    units: Units,
    *,
    num_data: int | None = None,
    rule: optax.GradientTransformation | None = None,
    grad_norm_every: int | None = None,
) -> Callable[[State, Any], tuple[State, vi.training.Metrics]]:
    """The pure step of a config, from pixel values [B, *x_shape]; `num_data` is N of the training
    split, for an objective that asks for it; `rule` is its optimiser and the rest the config's, if
    not given.
    """
    spec = config.train
    max_skipped = spec.max_skipped if spec.on_nonfinite == "skip" else 0
    every = 1 if max_skipped else min(GRAD_NORM_EVERY, spec.log_every)
    return vi.make_step(
        loss(config, the_model, num_data),
        rule or optimizer(config),
        ema_decay=spec.ema,
        prepare=prepare(config, units),
        grad_norm_every=grad_norm_every or every,
        max_skipped=max_skipped,
    )


def units(config: Any, num_levels: int) -> Units:
    """What the model's likelihood is of: pixel values in [0, 1], the levels themselves, or, of no
    levels, a table.
    """
    if not num_levels:
        return Units("table", 0)
    choice = config.model.get("likelihood")
    if choice is None:
        is_ours = config.model[NAME] in rooms.MODEL.all_names()
        return Units("binary" if is_ours else "unit", num_levels)  # ours are Bernoulli then
    known = {**sizes(config), "num_levels": num_levels}
    likelihood = ROOMS.build(rooms.LIKELIHOOD, choice, where="config.model.likelihood", facts=known)
    return Units(likelihood.support, num_levels)


def prepare(config: Any, units: Units) -> vi.training.Prepare:
    """(key, batch of pixel values) -> x as the likelihood expects it: binarised afresh, grey in
    [0, 1], or levels. Of a batch with further leaves, those pass as they are, but for labels of
    which some are hidden: they get `has_label` beside them.
    """
    num_levels = units.num_levels
    num_labels = config.data.num_labels
    is_binarised = config.data.binarisation == "dynamic" and num_levels > 2

    def image(key: jax.Array, levels: jax.Array) -> jax.Array:
        if is_binarised:
            return binarise(key, levels, num_levels)
        if units.support in WHOLE:
            return levels.astype(jnp.int32)
        return levels.astype(jnp.float32) / (num_levels - 1)

    def example(key: jax.Array, batch: Any) -> Any:
        if units.support == "table":
            return batch
        if not isinstance(batch, dict):
            return image(key, batch)
        found = {**batch, "image": image(key, batch["image"])}
        if not num_labels:
            return found
        label = batch["label"]  # below 0 where it is hidden
        return {**found, "label": jnp.maximum(label, 0), "has_label": label >= 0}

    return example


def binarise(key: jax.Array, levels: jax.Array, num_levels: int) -> jax.Array:
    """Each pixel 1 with probability level / (num_levels - 1), by 16 random bits: right to 2^-17,
    exact at 0 and at 1.

    A word of 32 bits serves two pixels of an example: half the time of `jax.random.bits(...,
    jnp.uint16)`, which draws a word for each, and nothing that devices with examples of their own
    would have to send each other.
    """
    flat = levels.reshape(levels.shape[0], -1)  # one axis is faster on a CPU
    num = flat.shape[1]
    words = jax.random.bits(key, (flat.shape[0], -(-num // 2)), jnp.uint32)
    bits = jnp.concatenate([words >> 16, words & 0xFFFF], axis=1)[:, :num].astype(jnp.int32)
    threshold = jnp.round(flat.astype(jnp.float32) * (65536.0 / (num_levels - 1))).astype(jnp.int32)
    return (bits < threshold).astype(jnp.float32).reshape(levels.shape)


def to_unit(units: Units, x: np.ndarray) -> np.ndarray:
    """x, or the mean of p(x | z), as grey in [0, 1] for pictures."""
    return np.clip(np.asarray(x, np.float32) * units.scale, 0.0, 1.0)
