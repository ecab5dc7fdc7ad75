"""Imputation of a table, or of the steps of sequences: means, 90 % intervals and draws of missing
entries, by importance resampling.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vi_jax as vi
from experiments import figures
from experiments.cli import UserError
from experiments.data import DataError, StoredTable, stored_tables
from experiments.data.columns import CLASSES, Table
from experiments.evals import calibrating, filled_in, tables
from experiments.evals.base import batches
from experiments.evals.decoding import rows_of as some_of
from experiments.evals.encoding import ALL, joined, require_memory, rows_of, splits_of
from experiments.evals.evidence import RELIABLE
from experiments.evals.steps import by_step, observed_of
from experiments.run import estimate, heartbeat, session
from experiments.run.kinds import require_imputable, require_kind
from experiments.run.live import Count
from vi_jax import files
from vi_jax.diagnostics.imputation import impute_row

BATCH_NUMBERS = 16_000_000  # that samples of a batch of rows are, at most, where it is not given


class Entries(NamedTuple):
    """Missing entries of a table, [M], in the data's units; classes are codes."""

    row: np.ndarray  # among the rows that were asked for
    column: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray  # 5 % quantile, or the lower end of the calibrated interval
    median: np.ndarray
    high: np.ndarray  # 95 % quantile, or the upper end
    code: np.ndarray  # of classes the most probable level
    probability: np.ndarray  # of it; 0 of other columns
    effective_samples: np.ndarray  # of the row's weights, between 1 and K
    k_hat: np.ndarray  # of them
    draws: np.ndarray  # [M, S]


def impute(
    config: Any,
    dataset: Any,
    workdir: Path,
    out: Path,
    *,
    split: str,
    checkpoint: str,
    seed: int,
    num_samples: int,
    num_draws: int,
    num_hidden: int = 1_000,
    batch_size: int = 0,
) -> None:
    """Writes imputed.csv, intervals.csv, intervals.json, draws.npz and imputed.png.

    Args:
      config: of the run.
      dataset: of the run, a table or sequences.
      workdir: of the run.
      out: where to write.
      split: train, validation, test or all.
      num_samples: K, importance samples of a row.
      num_draws: S, draws of each missing entry.
      num_hidden: observed entries of validation rows that are hidden to calibrate the intervals.
      batch_size: rows at a time; 0: `batch_size_of`.

    Raises:
      UserError: the model has no densities.
    """
    names = splits_of(dataset, split)
    require_memory(dataset, names)
    require_kind(config, dataset)
    model = session.make_model(config, dataset)
    if model.densities is None:
        raise UserError(f"{workdir} is of a model without densities; it cannot impute.")
    require_imputable(model, dataset.train.x)
    observed = np.concatenate([observed_of(getattr(dataset, name)) for name in names])
    num_missing = int((~observed).sum())
    estimate.require_draws(num_missing, num_draws)
    params, step = session.trained_params(config, model, workdir, checkpoint)
    # 1. the missing entries of each split
    key = jax.random.key(seed)
    impute_entries = make_impute(
        model,
        dataset.table,
        num_samples=num_samples,
        num_draws=num_draws,
        batch_size=batch_size or batch_size_of(dataset.table, num_samples),
    )
    parts = []
    before = 0
    for number, name in enumerate(names):
        x, _ = session.evaluation_set(config, dataset, name)
        part = getattr(dataset, name)
        with heartbeat.compiling(f"imputing the {name} split"):
            found = impute_entries(jax.random.fold_in(key, number), params, x, part.lengths)
        parts.append(found._replace(row=found.row + before))
        before += len(observed_of(part))
    # 2. intervals that cover as they say
    key_hidden = jax.random.fold_in(key, len(names))
    calibration = calibrating.of_run(
        config, dataset, names, impute_entries, key_hidden, params, num_hidden=num_hidden
    )
    entries = calibrating.widen(joined(parts), calibration, dataset.table)
    # 3. what is written
    stored = _stored(config)
    _note_left_out(stored, split)
    rows = by_step(rows_of(dataset, names), dataset, names)
    filled_in.write(out, dataset.table, {name: stored[name] for name in names}, rows, entries)
    files.write_json(out / "intervals.json", calibration.to_json())
    title = f"{tables.named(config)}: imputed entries of {', '.join(names)} rows"
    _draw(out, dataset, names, entries, title)
    _say(f"{config.name}, step {step:,}", out, entries, observed)
    if len(entries.row):
        print(calibration.in_words())


def _stored(config: Any) -> dict[str, StoredTable]:
    """The tables as they came, by split; what is wrong with them is a UserError."""
    try:
        with heartbeat.phase(f"reading the data set {config.data.name}"):
            return stored_tables(config.data)
    except DataError as error:
        raise UserError(str(error)) from None


def _note_left_out(stored: dict[str, StoredTable], split: str) -> None:
    """Says how many stored rows are in no split of the run."""
    sizes = {part.split: len(part.table) for part in stored.values()}
    num = sum(sizes.values()) - sum(len(part.rows) for part in stored.values())
    if num and split == ALL:
        heartbeat.say(f"note: {num:,} rows of the data are in no split of the run, and left out.")


def make_impute(
    model: vi.Model, table: Table, *, num_samples: int, num_draws: int, batch_size: int
) -> Callable[..., Entries]:
    """A function (key, params, x leaves [N, ...], lengths [N] of sequences or None) -> the missing
    entries, row after row, or step after step.
    """

    def one(key: jax.Array, params: Any, x: Any) -> Any:
        return impute_row(
            key,
            model,
            params,
            x,
            num_samples=num_samples,
            num_draws=num_draws,
            coverage=calibrating.COVERAGE,
        )

    program = jax.jit(jax.vmap(one, in_axes=(0, None, 0)))

    def impute_entries(
        key: jax.Array, params: Any, x: Any, lengths: np.ndarray | None = None
    ) -> Entries:
        missing = ~np.asarray(x["observed"])
        number = np.arange(len(missing))
        if lengths is not None:  # what is in the padding is no entry
            is_there = np.arange(missing.shape[1]) < lengths[:, None]
            missing &= is_there[..., None]
            number = np.cumsum(is_there.ravel()).reshape(is_there.shape) - 1  # of each step
        incomplete = np.flatnonzero(missing.reshape(len(missing), -1).any(1))
        if not len(incomplete):
            return _no_entries(num_draws)
        keys = jax.random.split(key, len(incomplete))
        parts = []
        with Count(f"imputing, K = {num_samples:,}", len(incomplete), "rows") as count:
            for rows, counted in batches(len(incomplete), batch_size):
                at = incomplete[rows]
                found = jax.device_get(program(keys[rows], params, some_of(x, at)))
                parts.append(_entries(table, found, number[at], missing[at], counted))
                count.add(int(counted.sum()))
        return joined(parts)

    return impute_entries


def batch_size_of(table: Table, num_samples: int) -> int:
    """Rows at a time whose samples, with means, variances and probabilities, are BATCH_NUMBERS."""
    levels = max([2, *(len(column.levels) for column in table.columns)])
    numbers = num_samples * math.prod(table.x_shape) * (3 + levels)
    return int(np.clip(BATCH_NUMBERS // numbers, 1, 256))


def _entries(
    table: Table, found: Any, number: np.ndarray, missing: np.ndarray, counted: np.ndarray
) -> Entries:
    """The missing entries of a batch of rows or sequences, in the data's units.

    Args:
      found: of each, leaves [B, ...].
      number: of each row [B], or of each step [B, T].
      missing: [B, D] or [B, T, D].
      counted: which of the batch count, [B].
    """
    where = np.nonzero(missing & counted.reshape(-1, *(1,) * (missing.ndim - 1)))
    example = where[0]
    zero = table.to_data(np.zeros(missing.shape))
    probs = found.probs[where]
    return Entries(
        row=number[where[:-1]],
        column=where[-1],
        mean=table.to_data(found.mean)[where],
        sd=(table.to_data(found.std) - zero)[where],
        low=table.to_data(found.lower)[where],
        median=table.to_data(found.median)[where],
        high=table.to_data(found.upper)[where],
        code=probs.argmax(-1),
        probability=probs.max(-1),
        effective_samples=found.effective_samples[example],
        k_hat=found.k_hat[example],
        draws=np.moveaxis(table.to_data(found.draws), 1, -1)[where],
    )


def _no_entries(num_draws: int) -> Entries:
    numbers = {name: np.zeros(0) for name in Entries._fields}
    indices = {name: np.zeros(0, int) for name in ("row", "column", "code")}
    return Entries(**{**numbers, **indices, "draws": np.zeros((0, num_draws))})


# --- what is shown and said


def _draw(out: Path, dataset: Any, names: tuple[str, ...], entries: Entries, title: str) -> None:
    """imputed.png: the imputed entries of each column beside what is observed of it."""
    table = dataset.table
    parts = [getattr(dataset, name).x for name in names]
    known = np.concatenate([part["observed"].reshape(-1, len(table.columns)) for part in parts])
    data = np.concatenate([part["values"].reshape(-1, len(table.columns)) for part in parts])
    data = table.to_data(data)
    shown = []
    for d, column in enumerate(table.columns):
        of_column = entries.column == d
        observed = known[:, d]
        if not of_column.any() or not observed.any():
            continue
        values = data[:, d]
        is_class = column.kind in CLASSES
        mean = (entries.code if is_class else entries.mean)[of_column]
        levels = column.levels if is_class else ()
        low = entries.low[of_column]
        high = entries.high[of_column]
        shown.append(figures.Imputed(column.name, values[observed], mean, low, high, levels))
    if shown:
        figures.imputed_columns(out / "imputed.png", shown, title=title)


def _say(head: str, out: Path, entries: Entries, observed: np.ndarray) -> None:
    if not len(entries.row):
        print(f"{head}: nothing is missing in {len(observed):,} rows, written as they are to {out}")
        return
    _, first = np.unique(entries.row, return_index=True)
    share = np.mean(entries.k_hat[first] < RELIABLE)
    print(
        f"{head}: {len(entries.row):,} missing entries ({100 * (~observed).mean():.1f} %) of "
        f"{len(first):,} rows imputed, k-hat < {RELIABLE} on {100 * share:.0f} % of them; "
        f"imputed.csv, intervals.csv, draws.npz and imputed.png in {out}"
    )
