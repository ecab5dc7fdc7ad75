"""Posterior means and standard deviations of the latents of each row, and its anomaly score."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi
from experiments import files
from experiments.cli import UserError
from experiments.evals import evidence
from experiments.evals.base import batches
from experiments.evals.csv_file import write_csv
from experiments.evals.latents import by_site
from experiments.run import devices, estimate, heartbeat, memory, session
from experiments.run.kinds import require_kind
from experiments.run.live import Count
from vi_jax.types import num_examples

SPLITS = ("train", "validation", "test")
ALL = "all"
BYTES_OF_A_PIXEL = 4  # float32, where it is stored in one
NUM_SAMPLES = 500  # of z, for moments that a guide does not state


class Latents(NamedTuple):
    """Moments of q(z | x) of some examples, by site, leaves [N, ...]."""

    mean: dict[str, Any]
    sd: dict[str, Any]


class Rows(NamedTuple):
    """Which examples they are: arrays [N]."""

    split: np.ndarray
    row: np.ndarray  # place in the split, from 0
    id: np.ndarray | None  # of the data, where they have ids
    label: np.ndarray | None
    step: np.ndarray | None = None  # of sequences, whose steps are the rows


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
    require_memory(dataset, names)
    if num_samples:
        estimate.require_evaluation(
            config, dataset, num_samples=num_samples, chunk=most, key="--num_samples"
        )
    require_kind(config, dataset)
    model = session.make_model(config, dataset)
    if model.densities is None:
        raise UserError(f"{workdir} is of a model without densities; it has no latents to encode.")
    params, step = session.trained_params(config, model, workdir, checkpoint)
    key_latents, key_scores = jax.random.split(jax.random.key(seed))
    batch_size = config.eval.batch_size
    moments = make_moments(model, batch_size)
    log_p = None
    if num_samples:
        log_p = evidence.make_log_evidence(
            model, num_samples=num_samples, batch_size=batch_size, most=most, layout=layout
        )
    found = []
    scores = []
    for number, name in enumerate(names):
        x, _ = session.evaluation_set(config, dataset, name)
        with heartbeat.compiling(f"encoding the {name} split"):
            found.append(moments(jax.random.fold_in(key_latents, number), params, x))
        if log_p is not None:
            with heartbeat.compiling(f"computing log p(x) of the {name} split"):
                scores.append(log_p(jax.random.fold_in(key_scores, number), params, x))
    rows = rows_of(dataset, names)
    latents = joined(found)
    _write_latents(out, rows, latents)
    print(f"{config.name}, step {step:,}: {_said(latents)} of {len(rows.row):,} rows in {out}")
    if scores:
        of_all = joined(scores)
        by_units = _minus_log_p(of_all.log_p, dataset, names)
        _write_scores(out, rows, of_all, by_units, num_samples)


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


def require_memory(dataset: Any, names: tuple[str, ...]) -> None:
    """Raises UserError where a split, as the model takes it, is more than the memory at hand."""
    hand = memory.at_hand()
    grows = 1 if dataset.table is not None else BYTES_OF_A_PIXEL
    for name in names:
        size = grows * getattr(dataset, name).nbytes
        if size > hand.num_bytes:
            raise UserError(
                f"the {name} split takes {memory.in_words(size)} as a model takes it, and "
                f"{memory.in_words(hand.num_bytes)} are at hand ({hand.source}); name another "
                "--split, or split the data in parts."
            )


def rows_of(dataset: Any, names: tuple[str, ...]) -> Rows:
    """The examples of some splits, one split after the other."""
    parts = [getattr(dataset, name) for name in names]
    split = np.repeat(names, [part.num for part in parts])
    row = np.concatenate([np.arange(part.num) for part in parts])
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([np.asarray(part.labels) for part in parts])
    ids = None
    if all(part.ids is not None for part in parts):
        ids = np.concatenate([np.asarray(part.ids) for part in parts])
    return Rows(split, row, ids, labels)


def make_moments(model: vi.Model, batch_size: int) -> Any:
    """A function (key, params, x leaves [N, ...]) -> Latents."""
    densities: Any = model.densities

    @jax.jit
    def some(keys: jax.Array, params: Any, x: Any) -> Any:
        return jax.vmap(lambda key, x: moments_of(key, densities.guide(params, x)))(keys, x)

    def moments(key: jax.Array, params: Any, x: Any) -> Latents:
        num = num_examples(x)
        keys = jax.random.split(key, num)
        parts = []
        with Count("encoding", num, "examples") as count:
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


# --- what is written


def joined(parts: list[Any]) -> Any:
    """The leaves of pytrees of arrays, one after the other."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _write_latents(out: Path, rows: Rows, latents: Latents) -> None:
    arrays = {name: column for name, column in rows._asdict().items() if column is not None}
    for name, moments in latents._asdict().items():
        arrays |= {f"{name}/{site}": leaf for site, leaf in moments.items()}
    with heartbeat.phase("writing latents.npz"):
        files.write_npz(out / "latents.npz", arrays, compressed=True)
    write_csv(out / "latents.csv", {**_columns(rows), **dict(_latent_columns(latents))})


def _columns(rows: Rows) -> dict[str, np.ndarray]:
    """The first columns of a table of rows: the id or, without ids, the place in the split."""
    first = {"row": rows.row} if rows.id is None else {"id": rows.id}
    more = {} if rows.label is None else {"label": rows.label}
    return {**first, "split": rows.split, **more}


def _latent_columns(latents: Latents) -> Iterator[tuple[str, np.ndarray]]:
    """`z_0_mean`, `z_0_sd`, ...: each latent of each site."""
    for site, mean in latents.mean.items():
        for index in np.ndindex(mean.shape[1:]):
            name = "_".join([site, *map(str, index)])
            yield f"{name}_mean", mean[(slice(None), *index)]
            yield f"{name}_sd", latents.sd[site][(slice(None), *index)]


def _said(latents: Latents) -> str:
    sizes = {site: int(np.prod(leaf.shape[1:])) for site, leaf in latents.mean.items()}
    by_name = ", ".join(f"{size} of {site}" for site, size in sizes.items())
    named = f" ({by_name})" if len(sizes) > 1 else ""
    return f"posterior means and SDs of {sum(sizes.values())} latents{named}"


def _minus_log_p(log_p: np.ndarray, dataset: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """-log p(x) of rows in nats, by the name of its column in scores.csv; the first one ranks.

    Of a table first in standard deviations of the training rows, which do not depend on the units
    of columns where rows lack different ones, then in the units of the data.
    """
    if dataset.table is None:
        return {"minus_log_p": -log_p}
    parts = [getattr(dataset, name).x["observed"] for name in names]
    in_data = log_p - np.concatenate([dataset.table.log_jacobian(each) for each in parts])
    standard = in_data + np.concatenate([dataset.table.log_standard(each) for each in parts])
    return {"minus_log_p": -standard, "minus_log_p_data_units": -in_data}


def _write_scores(
    out: Path,
    rows: Rows,
    found: evidence.Evidence,
    by_units: dict[str, np.ndarray],
    num_samples: int,
) -> None:
    """scores.csv: rows ranked by -log p(x), the most surprising first."""
    score = by_units["minus_log_p"]
    order = np.argsort(-score, kind="stable")
    numbers = {**by_units, "stderr": found.stderr, "k_hat": found.k_hat}
    columns = {
        "rank": np.arange(1, len(order) + 1),
        **{name: column[order] for name, column in _columns(rows).items()},
        **{name: column[order].astype(np.float32) for name, column in numbers.items()},
    }
    write_csv(out / "scores.csv", columns)
    note = ""
    if num_samples >= evidence.MIN_SAMPLES:
        share = np.mean(found.k_hat < evidence.RELIABLE)
        note = f", k-hat < {evidence.RELIABLE} on {100 * share:.0f} % of rows"
    first = order[0]
    named = ", ".join(f"{name} {column[first]}" for name, column in _columns(rows).items())
    print(
        f"scores.csv: -log p(x) in nats by IWAE K = {num_samples:,}, ranked{note}; first {named} "
        f"with {score[first]:.3f} ± {found.stderr[first]:.3f}"
    )
