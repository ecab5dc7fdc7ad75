"""What evaluations share: the subject, one evaluation, and all of them in one compiled program."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from experiments.data.base import Factors
from experiments.evals.shared_guide import SharedGuide
from experiments.run import effort, heartbeat
from experiments.run.live import Count
from vi_jax.diagnostics.amortised import MeanStderr
from vi_jax.types import num_examples


class Subject(NamedTuple):
    """What is evaluated."""

    model: vi.Model
    config: Any  # of the run
    units: Any  # `experiments.build.Units`: what the likelihood is of
    factors: Factors | None = None  # of the evaluated examples, where the data have them
    kinds: tuple[str, ...] = ()  # of the columns of a table, or of sequences
    is_sequences: bool = False
    truth: Any = None  # of the evaluated split, see `experiments.data.base.Split`


class Row(NamedTuple):
    """A line of the closing table."""

    title: str
    value: str
    note: str = ""


class Evaluation(NamedTuple):
    """One evaluation of a subject: of each example, of all of them, and what is said of it."""

    name: str
    # (key, params, one example) -> arrays by name, which are stacked to [N, ...]; pure
    each: Callable[[jax.Array, Any, Any], dict[str, Any]]
    # (key, params, x leaves [N, ...], those arrays) -> arrays by name; pure
    reduce: Callable[[jax.Array, Any, Any, dict[str, Any]], dict[str, Any]]
    # those arrays on the host -> numbers by name, for summary.json and metrics.jsonl
    summarise: Callable[[dict[str, Any]], dict[str, Any]]
    rows: Callable[[dict[str, Any]], list[Row]]  # the summary -> lines of the table


class Measures(NamedTuple):
    """What all evaluations of a subject gave."""

    summary: dict[str, Any]  # plain numbers, by name
    arrays: dict[str, Any]  # on the host, by name: what figures are drawn from


class Meter(NamedTuple):
    """All evaluations that a subject allows."""

    evaluations: tuple[Evaluation, ...]
    skipped: dict[str, str]  # evaluation -> what the subject lacks
    measure: Callable[[jax.Array, Any, Any], Measures]
    # (keys, params, some examples) -> the arrays of all evaluations; pure, what `measure` compiles
    each: Callable[[jax.Array, Any, Any], list[dict[str, Any]]]

    def rows(self, summary: dict[str, Any]) -> list[Row]:
        """The lines of the closing table."""
        return [row for each in self.evaluations for row in each.rows(summary)]


def make_meter(subject: Subject, makers: Any) -> Meter:
    """The evaluations that a subject allows, in one program for a batch and one for all.

    Args:
      subject: what is evaluated.
      makers: modules or objects with `make(subject) -> Evaluation`, or the reason why not.
    """
    shared = None
    if subject.model.densities is not None:
        shared = SharedGuide(subject.model)
        subject = subject._replace(model=shared.model)
    made = {maker.__name__.rpartition(".")[2]: maker.make(subject) for maker in makers}
    evaluations = tuple(each for each in made.values() if isinstance(each, Evaluation))
    skipped = {name: each for name, each in made.items() if isinstance(each, str)}

    def each(keys: jax.Array, params: Any, x: Any) -> list[dict[str, Any]]:
        def one(key: jax.Array, x: Any) -> list[dict[str, Any]]:
            own = jax.random.split(key, max(len(evaluations), 1))
            with nullcontext() if shared is None else shared.of(params, x):
                return [e.each(k, params, x) for k, e in zip(own, evaluations, strict=True)]

        return jax.vmap(one)(keys, x)

    @effort.jit_evaluation
    def reduce(key: jax.Array, params: Any, x: Any, terms: Any) -> list[dict[str, Any]]:
        own = jax.random.split(key, max(len(evaluations), 1))
        parts = zip(own, evaluations, terms, strict=True)
        return [e.reduce(k, params, x, found) for k, e, found in parts]

    each_program = effort.jit_evaluation(each)
    batch_size = subject.config.eval.batch_size

    def measure(key: jax.Array, params: Any, x: Any) -> Measures:
        key_each, key_reduce = jax.random.split(key)
        num = num_examples(x)
        keys = jax.random.split(key_each, num)
        parts = []
        with Count("evaluating", num, "examples") as count:
            for rows, counted in batches(num, batch_size):
                some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], x)
                part = jax.device_get(each_program(keys[rows], params, some))
                parts.append(jax.tree.map(lambda leaf, counted=counted: leaf[counted], part))
                count.add(int(counted.sum()))
        terms = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        with heartbeat.phase("comparing the posteriors of examples"):
            found = jax.device_get(reduce(key_reduce, params, x, terms))
        summary: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        for evaluation, own in zip(evaluations, found, strict=True):
            summary |= evaluation.summarise(own)
            arrays |= own
        return Measures({**summary, "num_examples": num}, arrays)

    return Meter(evaluations, skipped, measure, each)


def batches(num: int, most: int, devices: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows [size], which of them count [size]) of batches of one size, as few as can be and as
    even; the last one is filled up with its first row.
    """
    size = -(-num // -(-num // most))
    size = -(-size // devices) * devices
    for start in range(0, num, size):
        rows = np.arange(start, start + size)
        counted = rows < num
        yield np.where(counted, rows, start), counted


def pair(value: MeanStderr) -> dict[str, float]:
    """A mean and its standard error, as JSON has them."""
    return {"mean": float(value.mean), "stderr": float(value.stderr)}


def mean_stderr(values: np.ndarray) -> dict[str, float]:
    """Mean and standard error over examples [N], in float64."""
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "stderr": float(values.std(ddof=1, dtype=np.float64) / len(values) ** 0.5),
    }


def said(value: dict[str, float]) -> str:
    """`-22.625 ± 0.194`, aligned with the other rows."""
    return f"{value['mean']:>11.3f} ± {value['stderr']:<8.3f}"
