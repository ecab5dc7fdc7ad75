"""What was found in a data set and what is done to it, in at most ten lines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data.columns import CLASSES, COUNTS, LOG, REAL, STANDARDISED, Column

SHOWN = 6  # names in a line
HASHED = 2**17  # numbers at a time, which a cache holds
MOST_BYTES = 2**28  # of images that are looked at one by one


def of_table(name: str, made: Any, selections: Mapping[str, Any]) -> tuple[str, ...]:
    """The report of a table.

    Args:
      name: of the data set.
      made: `tables.Made`.
      selections: how each split was cut.
    """
    splits = made.splits
    num = {role: split.num for role, split in splits.items()}
    lines = [
        f"{name}: a table of {sum(num.values()):,} rows x {len(made.table.columns)} columns",
        f"splits: {_splits(num, selections)}",
        *_kinds(made.table.columns),
        f"missing: {_missing(made)}",
        f"left out: {'; '.join([_dropped(made.dropped), *made.notes])}",
        f"duplicates: {_duplicates(made.hashes)}",
        f"range: {_ranges(made.ranges, made.table.columns)}",
        f"done: {_done(made.table.columns, 'training rows')}",
    ]
    return _in_lines(lines)


def of_sequences(
    name: str,
    made: Any,
    selections: Mapping[str, Any],
    hashes: Mapping[str, np.ndarray],
    lengths: Mapping[str, np.ndarray],
) -> tuple[str, ...]:
    """The report of sequences; arguments as of `of_table`, whose rows are their steps.

    Args:
      lengths: of the sequences of each split.
    """
    num = {role: len(each) for role, each in lengths.items()}
    together = np.concatenate(list(lengths.values()))
    steps = f"{together.min()} to {together.max()} steps, {np.median(together):g} in the median"
    share = 1.0 - together.mean() / together.max()
    lines = [
        f"{name}: {len(together):,} sequences of {steps}, x {len(made.table.columns)} columns",
        f"splits: {_splits(num, selections)}; no sequence is in two",
        *_kinds(made.table.columns),
        f"missing: {_missing(made)}; padding is apart: {100 * share:.3g} % of {len(together):,} x "
        f"{together.max()} steps",
        f"left out: {'; '.join([_dropped(made.dropped), *made.notes])}",
        f"duplicates: {_duplicates(hashes)}",
        f"range: {_ranges(made.ranges, made.table.columns)}",
        f"done: {_done(made.table.columns, 'steps of the training sequences')}, padded to "
        f"{together.max()} steps",
    ]
    return _in_lines(lines)


def of_images(dataset: Any, config_data: Any) -> tuple[str, ...]:
    """The report of a data set of images.

    Args:
      dataset: `base.Dataset`.
      config_data: config.data, which says what is done to pixels.
    """
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    here = {role: split for role, split in splits.items() if split is not None}
    shape = " x ".join(map(str, dataset.x_shape))
    num = {role: split.num for role, split in here.items()}
    counts = ", ".join(f"{role} {count:,}" for role, count in num.items())
    lines = [
        f"{dataset.name}: {sum(num.values()):,} images, {shape}, of {dataset.num_levels} levels",
        f"splits: {counts}",
    ]
    if sum(split.nbytes for split in here.values()) > MOST_BYTES:
        lines.append(f"not looked at one by one: they take more than {MOST_BYTES / 2**20:.0f} MB")
    else:
        lines += _of_pixels(here)
    return (*lines, f"done: {_done_to_pixels(dataset.num_levels, config_data.binarisation)}")


def _in_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """Each in one line, where names and levels hold ends of lines."""
    return tuple(" ".join(line.split()) for line in lines)


def _of_pixels(splits: Mapping[str, Any]) -> list[str]:
    """Ranges, pixels that never change, and images that repeat."""
    train = np.asarray(splits["train"].x[:])
    flat = train.reshape(len(train), -1)
    low = flat.min(0)
    num_constant = int(np.sum(low == flat.max(0)))
    hashes = {
        role: row_hashes({"pixels": np.asarray(split.x[:])}) for role, split in splits.items()
    }
    return [
        f"range: {low.min()} to {flat.max()}, mean {flat.mean(dtype=np.float64):.4g}",
        f"constants: {num_constant:,} of {flat.shape[1]:,} pixels are the same in all training "
        "images, and are kept",
        f"duplicates: {_duplicates(hashes)}",
    ]


def _done_to_pixels(num_levels: int, binarisation: str) -> str:
    if num_levels == 2:
        return "nothing, they are binary"
    if binarisation == "dynamic":
        return "binarised afresh at each step, a level as the probability of a one"
    return "levels as they are, or in [0, 1] where the likelihood is of such"


def row_hashes(x: Mapping[str, np.ndarray]) -> np.ndarray:
    """A number for each row of arrays [N, ...], uint64 [N]: equal rows have equal ones, and others
    almost never do (a sum of products by odd random numbers, modulo 2^64).
    """
    num = len(next(iter(x.values())))
    total = np.zeros(num, np.uint64)
    generator = np.random.default_rng(0)
    for name in sorted(x):
        flat = x[name].reshape(num, -1)
        factors = generator.integers(2**63, size=flat.shape[1], dtype=np.uint64) * 2 + 1
        size = max(1, HASHED // max(flat.shape[1], 1))
        for first in range(0, num, size):
            rows = np.ascontiguousarray(flat[first : first + size])
            bits = rows.view(np.uint32) if rows.dtype == np.float32 else rows
            total[first : first + size] += (bits.astype(np.uint64) * factors).sum(1)
    return total


def _splits(num: Mapping[str, int], selections: Mapping[str, Any]) -> str:
    told = [f"{role} {count:,} ({selections[role].text})" for role, count in num.items()]
    shuffled = any(selection.is_shuffled for selection in selections.values())
    return ", ".join(told) + (", shuffled by data.shuffle_seed" if shuffled else "")


def _kinds(columns: Sequence[Column]) -> list[str]:
    """What each column is taken for and why, in at most three lines."""
    groups: dict[str, list[Column]] = {}
    for column in columns:
        groups.setdefault(column.kind, []).append(column)
    by_size = sorted(groups.items(), key=lambda item: -len(item[1]))
    told = [
        f"{len(group)} {kind}: {listed(column.name for column in group)} ({_why(group)})"
        for kind, group in by_size
    ]
    if len(told) <= 3:
        return [f"taken for {line}" for line in told]
    return [*(f"taken for {line}" for line in told[:2]), f"taken for {'; '.join(told[2:])}"]


def _why(group: Sequence[Column]) -> str:
    whys = list(dict.fromkeys(column.why for column in group))
    return whys[0] if len(whys) == 1 else f"{whys[0]}, ..."


def _missing(made: Any) -> str:
    num = sum(split.num for split in made.splits.values())
    share = {name: gone / num for name, gone in made.missing.items() if gone}
    if not share:
        return "none"
    total = sum(share.values()) / len(made.table.columns)
    worst = sorted(share, key=lambda name: -share[name])
    told = listed(f"{name} {100 * share[name]:.3g} %" for name in worst)
    return f"{100 * total:.3g} % of all values; {told}"


def _dropped(dropped: Mapping[str, str]) -> str:
    if not dropped:
        return "nothing"
    return listed((f"{name!r} ({why})" for name, why in dropped.items()), noun="columns")


def _duplicates(hashes: Mapping[str, np.ndarray]) -> str:
    train = hashes["train"]
    train = np.sort(train)  # np.unique hashes, several times slower
    num_repeated = int(np.sum(train[1:] == train[:-1]))
    parts = [f"{num_repeated:,} of train repeat another"]
    for role in ("validation", "test"):
        if role in hashes:
            own = np.sort(hashes[role])  # neighbours lie close in memory
            place = np.searchsorted(train, own) % len(train)
            num_shared = int(np.sum(train[place] == own))
            parts.append(f"{num_shared:,} of {role} are in train")
    return ", ".join(parts)


def _ranges(ranges: Mapping[str, tuple[float, float]], columns: Sequence[Column]) -> str:
    told = []
    for what, kinds in (("reals", REAL), ("counts", COUNTS), ("codes", CLASSES)):
        names = [column.name for column in columns if column.kind in kinds]
        if names:
            low = min(ranges[name][0] for name in names)
            high = max(ranges[name][1] for name in names)
            told.append(f"{what} {low:.6g} to {high:.6g}")
    return ", ".join(told)


def _done(columns: Sequence[Column], rows: str) -> str:
    kinds = {column.kind for column in columns}
    told = []
    if kinds & set(STANDARDISED):
        told.append(f"reals standardised by the {rows}")
    if LOG in kinds:
        told.append("positive reals over their geometric mean")
    if kinds & set(COUNTS):
        told.append("counts as they are")
    if kinds & set(CLASSES):
        told.append("classes as codes")
    return ", ".join(told)


def listed(names: Iterable[str], noun: str = "") -> str:
    """The first few, and how many there are more."""
    all_names = list(names)
    rest = len(all_names) - SHOWN
    more = f" and {rest:,} more {noun}".rstrip() if rest > 0 else ""
    return ", ".join(all_names[:SHOWN]) + more
