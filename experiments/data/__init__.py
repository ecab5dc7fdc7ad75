"""Data for the experiments, by name: `load(config.data) -> Dataset` of images, uint8 levels in
plain arrays, or of tables and sequences as `columns.Table` describes them.

    digits              8x8, embedded in scikit-learn
    mnist               IDX files, fetched once if absent
    fashion_mnist       IDX files, fetched once if absent
    binarized_mnist     the official fixed binarisation
    oscillations        sequences, simulated
    photos              32x32 in colour, cut from two photographs
    shapes              32x32, made by five factors; shapes_small is 16x16
    tfds:NAME[/CONFIG]  TFDS, without TensorFlow
    npz:FILE            arrays of your own
    csv:FILE ...        tables, and sequences by a column that names them
    images:DIR          PNG and JPEG files of your own

Pure numpy: nothing here imports jax or TensorFlow, and scikit-learn, Pillow and TFDS are imported
only where used.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from experiments.data import fields, options, report
from experiments.data.ahead import Ahead
from experiments.data.base import DataError, Dataset, Raw, Split
from experiments.data.lazy import OnDisk
from experiments.data.levels import binarise
from experiments.data.names import AHEAD, NAMES, PREFIXES, Reading, check_name, open_source
from experiments.data.pixels import as_images
from experiments.data.raw import RawSequences, RawTable
from experiments.data.rules import Rules, read_rules
from experiments.data.sequences_of import read_stored, sequences_of
from experiments.data.small import is_small
from experiments.data.splits import Selection, check_disjoint, check_names, choose, resolve
from experiments.data.table_of import table_of
from experiments.data.which import are_sequences, are_tables, as_table

__all__ = [
    "NAMES",
    "PREFIXES",
    "Ahead",
    "DataError",
    "Dataset",
    "OnDisk",
    "Split",
    "StoredTable",
    "check_name",
    "load",
    "load_ahead",
    "read_rules",
    "report_of",
    "stored_tables",
]

PATIENCE = 1.5  # seconds that a command waits for what is read in a moment


class StoredTable(NamedTuple):
    """The rows of a role in a table as it is stored; of sequences those of their steps."""

    split: str  # the stored one
    table: RawTable
    rows: np.ndarray  # of the role, in its order


class _Stored(NamedTuple):
    """The splits of a source as they are stored, and what the fields say of them."""

    name: str
    source: str  # one phrase: where they are
    splits: dict[str, Raw]
    selections: dict[str, Selection]  # by role
    shuffle_seed: int
    rules: Rules
    options: options.Options

    @property
    def are_sequences(self) -> bool:
        """Whether they are those of sequences, each x a RawSequences."""
        return isinstance(next(iter(self.splits.values())).x, RawSequences)


def load(config_data: Any) -> Dataset:
    """The data set that `config.data` describes.

    Args:
      config_data: has name, data_dir, train, validation ("" for none), test, shuffle_seed,
        binarisation, static_seed; device_limit_mb (2048 when absent) bounds what a folder of images
        may take before it stays on disk.

    Returns:
      Dataset of uint8 images [N, *shape] (shape (H, W) for grey, (H, W, 3) for colour) and int
      labels [N] or None. With static binarisation the levels are already 0 and 1; dynamic
      binarisation is left to the training step. Or one of a table, or of sequences, see `Split`.

    Raises:
      DataError: for everything that can be wrong with names, files, splits and the network.
    """
    found = _stored(config_data)
    static_seed = fields.static_seed(config_data)
    make: Callable[..., Dataset] = table_of
    if found.are_sequences:
        make = sequences_of
    elif not are_tables(found.splits, found.options, found.rules):
        return _images(found, static_seed)
    return make(
        found.splits,
        found.selections,
        _rows(found),
        found.options,
        name=found.name,
        source=found.source,
    )


def load_ahead(config_data: Any) -> AbstractContextManager[Ahead[Dataset] | None]:
    """`load` in a thread that the context does not outlive, where the source is a text, which takes
    long to read, or is read in a moment, and refused before anything slow by `Ahead.settle`; for
    all others None is entered, and `load` is left to do.
    """
    name = str(config_data.get("name"))
    (prefix, _, _) = name.partition(":")
    if is_small(name, str(config_data.get("data_dir"))):
        return Ahead(lambda: load(config_data), patience=PATIENCE)
    if prefix in AHEAD:
        return Ahead(lambda: load(config_data))
    return nullcontext()


def stored_tables(config_data: Any) -> dict[str, StoredTable]:
    """The tables of a data set as they are stored, with all their columns, by role: what `load`
    makes its splits of, in their order.

    Raises:
      DataError: as `load`, and where the data are images.
    """
    found = _stored(config_data)
    if found.are_sequences:
        return _stored_steps(found)
    if not are_tables(found.splits, found.options, found.rules):
        raise DataError(f"{found.name} holds images, where a table is wanted.")
    tables = {split: as_table(raw) for split, raw in found.splits.items()}
    names = {role: selection.name for role, selection in found.selections.items()}
    return {
        role: StoredTable(names[role], tables[names[role]], rows)
        for role, rows in _rows(found).items()
    }


def _stored_steps(found: _Stored) -> dict[str, StoredTable]:
    """The tables that the steps of sequences are rows of."""
    names = {role: selection.name for role, selection in found.selections.items()}
    stored: dict[str, RawSequences] = {name: raw.x for name, raw in found.splits.items()}
    return {
        role: StoredTable(
            names[role], stored[names[role]].table, stored[names[role]].steps_of(some)
        )
        for role, some in _rows(found).items()
    }


def _stored(config_data: Any) -> _Stored:
    """Opens a source and reads its splits."""
    # 1. the fields
    name = fields.setting(config_data, "name", str)
    check_name(name)
    texts = {
        role: fields.setting(config_data, role, str) for role in ("train", "validation", "test")
    }
    settings = options.read(config_data)
    rules = read_rules(config_data)
    shuffle_seed = fields.seed(config_data, "shuffle_seed")
    data_dir = fields.setting(config_data, "data_dir", str)
    reading = Reading(data_dir, fields.limit_mb(config_data), rules, settings)
    # 2. the splits as they are stored
    try:
        source = open_source(name, reading)
        selections = choose(texts, source)
        check_names(selections, source.splits, f"{name} ({source.where})")
        names = {selection.name: None for selection in selections.values()}
        stored = {split: source.read(split) for split in names}
        if are_sequences(stored, settings):
            stored = read_stored(stored, settings)
    except OSError as error:
        raise DataError(
            f"{error.filename or name} cannot be read ({error}); check the path and its rights."
        ) from error
    return _Stored(name, source.where, stored, selections, shuffle_seed, rules, settings)


def report_of(dataset: Dataset, config_data: Any) -> tuple[str, ...]:
    """What was found in a data set and what is done to it, in at most ten lines."""
    return dataset.report or report.of_images(dataset, config_data)


def _images(found: _Stored, static_seed: int | None) -> Dataset:
    """The data set of stored images."""
    stored = as_images(found.splits, found.rules)
    if static_seed is not None:
        stored = {
            split: _binarised(raw, found.source, split, static_seed)
            for split, raw in stored.items()
        }
    raws = {role: stored[selection.name] for role, selection in found.selections.items()}
    _require_alike(raws)
    rows = _rows(found)
    parts = {role: _take(raw, rows[role]) for role, raw in raws.items()}
    return Dataset(
        parts["train"],
        parts.get("validation"),
        parts["test"],
        num_levels=raws["train"].num_levels,
        name=found.name,
        source=found.source,
        fingerprint=fingerprint(list(parts.values())),
    )


def _binarised(raw: Raw, source: str, split: str, static_seed: int) -> Raw:
    """A whole stored split, binarised before it is shuffled or sliced."""
    if isinstance(raw.x, OnDisk):
        raise DataError(
            f"{source} has {raw.x.nbytes / 1e6:.0f} MB of images and stays on disk, "
            "where static "
            "binarisation wants them at once; set config.data.binarisation to dynamic, or raise "
            "device_limit_mb."
        )
    x = binarise(raw.x, raw.num_levels, seed=static_seed, split=split)
    return raw._replace(x=x, num_levels=2)


def _require_alike(raws: dict[str, Raw]) -> None:
    """Raises DataError where the images of two roles differ in shape or levels."""
    for role, raw in raws.items():
        if (
            raw.x.shape[1:] != raws["train"].x.shape[1:]
            or raw.num_levels != raws["train"].num_levels
        ):
            raise DataError(
                f"the {role} images have shape {raw.x.shape[1:]} and {raw.num_levels} "
                "levels, the train images "
                f"{raws['train'].x.shape[1:]} and {raws['train'].num_levels}; save both alike."
            )


def _rows(found: _Stored) -> dict[str, np.ndarray]:
    """Role -> the stored rows of it, in their order, once they are known to be apart."""
    sizes = {split: len(raw.x) for split, raw in found.splits.items()}
    ranges = {
        role: resolve(selection, sizes[selection.name])
        for role, selection in found.selections.items()
    }
    check_disjoint(found.selections, ranges)
    rows = {}
    for role, selection in found.selections.items():
        order = np.arange(sizes[selection.name])
        if selection.is_shuffled:
            order = np.random.default_rng(found.shuffle_seed).permutation(order)
        rows[role] = order[ranges[role].start : ranges[role].stop]
    return rows


def _take(raw: Raw, order: np.ndarray) -> Split:
    """Some rows of a stored split."""
    images = raw.x.take(order) if isinstance(raw.x, OnDisk) else raw.x[order]
    labels = None if raw.labels is None else raw.labels[order]
    factors = raw.factors
    if factors is not None:
        factors = factors._replace(values=factors.values[order])
    return Split(images, labels, factors=factors)


def fingerprint(parts: list[Split]) -> str:
    """16 hex digits that change when the pixels do: each split's shape, mean (as a sum), first and
    last example.

    Of arrays on disk it is the sum of all that is stored; images in files of their own give none,
    which would mean decoding them all.
    """
    digest = hashlib.sha256()
    for part in parts:
        is_on_disk = isinstance(part.x, OnDisk)
        total = part.x.checksum if is_on_disk else str(part.x.sum(dtype=np.int64))
        digest.update(f"{part.x.shape} {total}".encode())
        digest.update(part.x[np.array([0, part.num - 1])].tobytes())
    return digest.hexdigest()[:16]
