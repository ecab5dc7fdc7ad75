"""Memory and time that a run takes, estimated before anything is allocated, and refused where that
is beyond what is at hand.

A wrong refusal is worse than none, so these are lower bounds: parameters and optimiser by their
shapes; programs as JAX traces them, where only operations that read and write whole arrays count
and what runs in chunks counts as chunks (`programs`). On a CPU, where the kernel ends a process
that takes too much, a program that is large by a rough guess (`rough`) is compiled too, and XLA
says what it will allocate. Where a rough guess of all is small, nothing is traced.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.errors import UserError
from experiments.run import duration, heartbeat, memory, rough
from experiments.run.programs import allocated, largest, num_bytes, products

CERTAIN = 1.1  # times what is at hand before arrays that there will be are refused
TRACED = 2.0  # the same of what a program seems to take: XLA may find a way with less
# Shares of what is at hand that a program takes by a rough guess before it is looked at.
_WORTH_TRACING = 0.1
_WORTH_COMPILING = 0.5
_MANY_SAMPLES = 100_000  # importance samples of an example from which on it may take long
_FILES_OF_A_RUN = 2  # that stay open, metrics.jsonl and timing.jsonl
_REMEDY = "take smaller batches or fewer samples"


class Need(NamedTuple):
    """Bytes that something takes at least, what it is, and what to do about it."""

    num_bytes: float
    what: str
    remedy: str
    margin: float = CERTAIN


def require_run(config: Any, dataset: Any, *, num_replicas: int = 1) -> None:
    """Raises UserError where training, or the evaluation at its end, cannot fit.

    Args:
      config: a config that has been checked.
      dataset: its data.
      num_replicas: runs side by side in one program.
    """
    from experiments import build

    _require_files(num_replicas)
    hand = memory.at_hand()
    _require(_covariances(config, dataset.num_levels), hand)
    spec = config.train
    draws = rough.samples_of(config)
    guess = rough.num_bytes(config, dataset, spec.batch_size * draws) * num_replicas
    if guess > _WORTH_TRACING * hand.num_bytes:
        problem = _problem(config, dataset)
        _require(_parameters(config, problem, num_replicas), hand)
        what = f"a step on a batch of config.train.batch_size={spec.batch_size:,}"
        if draws > 1:
            what += f" with config.objective.num_samples={draws:,}"
        num_data = dataset.train.num
        step = build.step(config, problem.model, problem.units, num_data=num_data)
        arguments = (problem.state, _stored(config, dataset, spec.batch_size))
        _require_program(what, guess, hand, step, arguments, times=num_replicas)
    require_evaluation(config, dataset, num_samples=config.eval.num_importance_samples)


def require_evaluation(
    config: Any, dataset: Any, *, num_samples: int, chunk: int = 100, key: str = ""
) -> None:
    """Raises UserError where measures and importance sampling cannot fit, or would not end.

    Args:
      num_samples: K, importance samples of each example.
      chunk: of them at a time, at most.
      key: of `num_samples`, as the user gave it; that of the config if not given.
    """
    from experiments import evals
    from experiments.evals import evidence

    # 1. whether they are worth a look
    hand = memory.at_hand()
    spec = config.eval
    split = getattr(dataset, spec.split)
    num_examples = 1 if split is None else split.num
    size = min(spec.batch_size, num_examples)
    together = evidence.chunk_for(num_samples, chunk)
    num_chunks = num_samples // together
    rough_elbo = rough.num_bytes(config, dataset, size * spec.num_samples)
    rough_evidence = (
        rough.num_bytes(config, dataset, size * together)
        + rough.NUM_ARRAYS * 8.0 * size * num_chunks
    )
    is_small = max(rough_elbo, rough_evidence) < _WORTH_TRACING * hand.num_bytes
    if is_small and num_samples < _MANY_SAMPLES:
        return
    # 2. the ELBO and what else is measured of each example
    problem = _problem(config, dataset)
    arguments = (_keys(size), problem.state.params, _prepared(config, dataset, problem, size))
    batches = f"config.eval.batch_size={spec.batch_size:,}"
    what = f"the ELBO with {batches} and config.eval.num_samples={spec.num_samples:,}"
    subject = evals.Subject(problem.model, config, problem.units)
    _require_program(what, rough_elbo, hand, _each(subject), arguments)
    # 3. log p(x)
    if problem.model.densities is None:
        return
    field = f"{key or 'config.eval.num_importance_samples'}={num_samples:,}"
    what = f"log p(x) with {batches} and {field}"
    number = jax.ShapeDtypeStruct((), np.int32)
    with_sums = (
        jax.eval_shape(lambda: evidence.no_sums(size, num_samples)),
        *arguments,
        number,
        number,
    )
    program = evidence.make_program(problem.model, num_chunks, together)
    _require_program(what, rough_evidence, hand, program, with_sums)
    flops = products(program, *with_sums) * num_chunks * num_examples / size
    duration.require_time(flops, f"log p(x) with {field} on {num_examples:,} examples")


def require_samples(config: Any, dataset: Any, num: int) -> None:
    """Raises UserError where the images, or rows, of prior samples cannot fit."""
    pixels = rough.num_pixels(dataset)
    parts = "pixels" if dataset.table is None else "columns"
    what = f"--num={num:,} prior samples of {pixels:,} {parts}"
    _require(Need(4.0 * num * pixels, what, "take fewer"), memory.at_hand())


def require_draws(num_missing: int, num_draws: int) -> None:
    """Raises UserError where draws of missing entries cannot fit."""
    what = f"--num_draws={num_draws:,} of {num_missing:,} missing entries"
    _require(Need(8.0 * num_missing * num_draws, what, "take fewer"), memory.at_hand())


def require_fit(config: Any, size: int, num_steps: int) -> None:
    """Raises UserError where the starts of a posterior, or its weighted samples, cannot fit.

    Args:
      config: of experiments.posterior.
      size: D, its unconstrained latents.
      num_steps: the most that the method takes; the value of each is kept.
    """
    hand = memory.at_hand()
    item = 8.0 if config.float64 else 4.0
    starts = config.num_starts * (num_steps + size) * item
    draws = config.num_draws * (size + 1) * item
    what = f"config.num_starts={config.num_starts:,} of {size:,} latents"
    _require(Need(starts, what, "take fewer starts"), hand)
    what = f"config.num_draws={config.num_draws:,} of {size:,} latents"
    _require(Need(draws, what, "take fewer draws"), hand)


# --- parts of the above


class _Problem(NamedTuple):
    """A model with its units, and its state as shapes alone."""

    model: Any
    units: Any
    state: Any


class _Shapes(NamedTuple):
    """What `facts.of_batch` asks of the data."""

    x_shape: tuple[int, ...]
    num_levels: int
    num_data: int
    num_classes: int | None
    table: Any  # of a table


def _problem(config: Any, dataset: Any) -> _Problem:
    from experiments import build, facts
    from experiments.run import session

    labels = dataset.train.labels
    num_classes = None if labels is None else int(labels.max()) + 1
    num = dataset.train.num
    shapes = _Shapes(dataset.x_shape, dataset.num_levels, num, num_classes, dataset.table)
    model = build.model(config, facts.of_batch(config, shapes))
    state = jax.eval_shape(lambda: session.start_state(config, model))
    return _Problem(model, build.units(config, dataset.num_levels), state)


def _stored(config: Any, dataset: Any, size: int) -> Any:
    """The shapes of a batch as it is stored (`session.examples`)."""
    if dataset.table is not None:
        return {
            name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
            for name, array in dataset.train.x.items()
        }
    dtype = np.uint8 if dataset.num_levels <= 2**8 else np.uint16
    image = jax.ShapeDtypeStruct((size, *dataset.x_shape), dtype)
    if not config.data.with_labels:
        return image
    return {"image": image, "label": jax.ShapeDtypeStruct((size,), np.int32)}


def _prepared(config: Any, dataset: Any, problem: _Problem, size: int) -> Any:
    """The shapes of a batch as the model takes it."""
    from experiments import build

    prepare = build.prepare(config, problem.units)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(prepare, key, _stored(config, dataset, size))


def _keys(size: int) -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))


def _each(subject: Any) -> Callable[..., Any]:
    """All evaluations of a batch of examples, as `evals.make_meter` runs them."""
    from experiments import evals

    return evals.make_meter(subject, evals.METERS).each


def _parameters(config: Any, problem: _Problem, num_replicas: int) -> Need:
    """The state of a run, by the shapes of its arrays."""
    many = f" of {num_replicas:,} replicas" if num_replicas > 1 else ""
    remedy = "take narrower layers or fewer latents"
    if num_replicas > 1:
        remedy = "take fewer replicas"
    what = f"the model{many}, with its optimiser and averages ({rough.sizes_in_words(config)}),"
    return Need(num_bytes(problem.state) * num_replicas, what, remedy)


def _covariances(config: Any, num_levels: int) -> Need:
    """Those of a full-rank family, before its rows and columns are listed in memory."""
    from experiments import build

    latents = max(rough.ints_in(config.model.get("num_latents")), default=0)
    what = f"a covariance of config.model.num_latents={latents:,}"
    size = latents**2 if build.traits(config, num_levels).has_covariance else 0
    return Need(4.0 * size, what, "take fewer latents, or config.model.family=low_rank")


def _require(need: Need, hand: memory.AtHand) -> None:
    least = memory.in_words(need.num_bytes)
    there = memory.in_words(hand.num_bytes)
    if need.num_bytes > need.margin * hand.num_bytes:
        raise UserError(
            f"{need.what} takes at least {least}, and {there} are at hand ({hand.source}); "
            f"{need.remedy}."
        )


def _require_program(
    what: str,
    guess: float,
    hand: memory.AtHand,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    *,
    times: int = 1,
) -> None:
    """Refuses a program that cannot fit, by its trace and, where it may be close, once compiled."""
    least = times * (num_bytes(arguments) + largest(function, *arguments))
    _require(Need(least, what, _REMEDY, TRACED), hand)
    if guess > _WORTH_COMPILING * hand.num_bytes and jax.default_backend() == "cpu":
        with heartbeat.compiling("compiling a program to see what it takes"):
            exact = times * allocated(function, *arguments)
        _require(Need(exact, what, _REMEDY), hand)


def _require_files(num_replicas: int) -> None:
    """Refuses more replicas than this process can have the files of."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_OF_A_RUN * num_replicas
    if most != resource.RLIM_INFINITY and needed > most:
        raise UserError(
            f"{num_replicas:,} replicas keep {needed:,} files open, and this process may open "
            f"{most:,} (ulimit -n); take fewer replicas."
        )
