"""Posterior means and standard deviations of the latents of each row, and its anomaly score."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments.cli import UserError
from experiments.data import Dataset
from experiments.data.columns import Table
from experiments.evals import evidence
from experiments.evals.base import batches
from experiments.evals.encoded import (
    Block,
    Latents,
    Rows,
    Scores,
    joined,
    minus_log_p,
    said,
    write_latents,
    write_scores,
)
from experiments.evals.latents import by_site
from experiments.run import devices, estimate, heartbeat, memory, session
from experiments.run.kinds import require_kind
from experiments.run.live import Count
from vi_jax.types import num_examples

SPLITS = ("train", "validation", "test")
ALL = "all"
PART_BYTES = 2**26  # of a split that is encoded at a time
BYTES_OF_A_PIXEL = 4  # float32, where it is stored in one
NUM_SAMPLES = 500  # of z, for moments that a guide does not state


def encode(
    config: Any,
    workdir: Path,
    out: Path,
    *,
    split: str,
    checkpoint: str = "latest",
    seed: int = 0,
    num_samples: int = 0,
    most: int = evidence.MAX_CHUNK,
) -> None:
    """Writes latents.npz and latents.csv, and with importance samples scores.csv.

    Args:
      config: of the run, with the batch size.
      workdir: of the run.
      out: where to write.
      split: train, validation, test or all; that of the config if empty.
      num_samples: K of the scores; 0 for none.
      most: of them at a time.

    Raises:
      UserError: the model has no densities, there is no such split, or the memory does not suffice.
    """
    layout = devices.make_layout(config, cuts_batches=False)
    dataset = session.load_data(config)
    names = splits_of(dataset, split or config.eval.split)
    if num_samples:
        estimate.require_evaluation(
            config, dataset, num_samples=num_samples, chunk=most, key="--num_samples"
        )
    require_kind(config, dataset)
    model = session.make_model(config, dataset)
    if model.densities is None:
        raise UserError(f"{workdir} is of a model without densities; it has no latents to encode.")
    params, step = session.trained_params(config, model, workdir, checkpoint)
    batch_size = config.eval.batch_size
    log_p = None
    if num_samples:
        log_p = evidence.make_log_evidence(
            model, num_samples=num_samples, batch_size=batch_size, most=most, layout=layout
        )
    work = Work(
        params,
        jax.random.split(jax.random.key(seed)),
        session.make_evaluation_rows(config, dataset),
        make_moments(model, batch_size),
        log_p,
    )
    blocks = encoded_parts(config, dataset, names, work)
    latents, scores = write_latents(out, blocks)
    num = sum(getattr(dataset, name).num for name in names)
    print(f"{config.name}, step {step:,}: {said(latents)} of {num:,} rows in {out}")
    if scores:
        write_scores(out, rows_of(dataset, names), joined(scores), num_samples)


class Work(NamedTuple):
    """What is done to a part of a split."""

    params: Any
    keys: jax.Array  # of latents and of scores
    rows: Any  # `session.make_evaluation_rows`
    moments: Any  # `make_moments`
    log_p: Any  # `evidence.make_log_evidence`, or None


def encoded_parts(
    config: Any, dataset: Dataset, names: tuple[str, ...], work: Work
) -> Iterator[Block]:
    """Splits in turn, each in parts of at most PART_BYTES as a model takes them."""
    total = sum(getattr(dataset, name).num for name in names)
    whole: Any = Count("encoding", total, "examples")
    if work.log_p is not None:  # which counts by itself, part by part
        whole = contextlib.nullcontext()
    like = rows_of(dataset, names, slice(0, 0))  # the types of all splits together
    with whole as count:
        for number, name in enumerate(names):
            part = session.evaluated_split(config, dataset, name)
            keys = [jax.random.fold_in(key, number) for key in work.keys]
            each = max(_growth(dataset) * part.nbytes // part.num, 1)
            size = max(PART_BYTES // each, 1)
            for place, start in enumerate(range(0, part.num, size)):
                rows = slice(start, min(start + size, part.num))
                own = place if part.num > size else None  # one part is the whole as it ever was
                with heartbeat.phase(f"reading the {name} split"):
                    x = work.rows(part, rows, own)
                at = keys if own is None else [jax.random.fold_in(key, own) for key in keys]
                here = rows_of(dataset, (name,), rows).astype(like)
                yield Block(here, *_encode_part(name, x, at, work, dataset.table, count))


def _encode_part(
    name: str,
    x: Any,
    keys: list[jax.Array],
    work: Work,
    table: Table | None,
    count: Count | None,
) -> tuple[Latents, Scores | None]:
    """The latents and, asked for, the scores of some rows, leaves [n, ...]."""
    with heartbeat.compiling(f"encoding the {name} split"):
        latents = work.moments(keys[0], work.params, x, count)
    if work.log_p is None:
        return latents, None
    with heartbeat.compiling(f"computing log p(x) of the {name} split"):
        found = work.log_p(keys[1], work.params, x)
    observed = None if table is None else np.asarray(x["observed"])
    return latents, Scores(found, minus_log_p(found.log_p, table, observed))


def splits_of(dataset: Any, split: str) -> tuple[str, ...]:
    """The splits that a name stands for.

    Raises:
      UserError: the data have no such split.
    """
    there = tuple(name for name in SPLITS if getattr(dataset, name) is not None)
    if split == ALL:
        return there
    if split not in there:
        raise UserError(f"--split={split} is none of {', '.join(there)} and {ALL}.")
    return (split,)


def require_memory(dataset: Dataset, names: tuple[str, ...]) -> None:
    """Raises UserError where a split, as the model takes it, is more than the memory at hand."""
    hand = memory.at_hand()
    for name in names:
        part = getattr(dataset, name)
        size = _growth(dataset) * part.nbytes
        if size > hand.num_bytes:
            raise UserError(
                f"the {name} split takes {memory.in_words(size)} as a model takes it, and "
                f"{memory.in_words(hand.num_bytes)} are at hand ({hand.source}); name another "
                "--split, or split the data in parts."
            )


def _growth(dataset: Dataset) -> int:
    """Bytes of what a model takes, for each that is stored."""
    return 1 if dataset.table is not None else BYTES_OF_A_PIXEL


def rows_of(dataset: Dataset, names: tuple[str, ...], which: slice = slice(None)) -> Rows:
    """The examples of some splits, one split after the other; of each those that are asked for."""
    parts = [getattr(dataset, name) for name in names]
    places = [np.arange(part.num)[which] for part in parts]
    split = np.repeat(names, [len(each) for each in places])
    row = np.concatenate(places)
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([np.asarray(part.labels)[which] for part in parts])
    ids = None
    if all(part.ids is not None for part in parts):
        ids = np.concatenate([np.asarray(part.ids)[which] for part in parts])
    return Rows(split, row, ids, labels)


def make_moments(model: vi.Model, batch_size: int) -> Any:
    """A function (key, params, x leaves [N, ...], count=None) -> Latents; what is done is added to
    `count`, or to one of its own.
    """
    densities: Any = model.densities

    @jax.jit
    def some(keys: jax.Array, params: Any, x: Any) -> Any:
        return jax.vmap(lambda key, x: moments_of(key, densities.guide(params, x)))(keys, x)

    def moments(key: jax.Array, params: Any, x: Any, count: Count | None = None) -> Latents:
        num = num_examples(x)
        if count is None:
            with Count("encoding", num, "examples") as own:
                return moments(key, params, x, own)
        keys = jax.random.split(key, num)
        parts = []
        for rows, counted in batches(num, batch_size):
            part = some(keys[rows], params, jax.tree.map(lambda leaf, r=rows: leaf[r], x))
            parts.append(jax.tree.map(lambda leaf, c=counted: np.asarray(leaf)[c], part))
            count.add(int(counted.sum()))
        return joined(parts)

    return moments


def moments_of(key: jax.Array, q: Any) -> Latents:
    """Mean and SD of each latent, by site: the guide's own where it states both, else of
    NUM_SAMPLES samples.
    """
    try:
        mean = by_site(q.mean)
        sd = {site: jnp.sqrt(leaf) for site, leaf in by_site(q.variance).items()}
    except (AttributeError, NotImplementedError):  # it states none
        dtype = jnp.result_type(float)
        z = by_site(q.sample(key, (NUM_SAMPLES,)))
        mean = {site: leaf.astype(dtype).mean(0) for site, leaf in z.items()}
        sd = {site: leaf.astype(dtype).std(0, ddof=1) for site, leaf in z.items()}
    return Latents(mean, sd)
