"""What a report says of counts of spikes: windows that overlap, units that repeat, and what a test
split cannot show.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.data import spike_counts
from experiments.data.columns import COUNTS, EQUAL_VARIANCE, Table
from experiments.data.report import listed

MIN_UNITS = 8  # columns of counts, from which on they are taken for neurons
OVERDISPERSED = 1.5
LARGEST_COUNT = 20.0  # mean of a bin: far too wide, or in other units
SMALLEST_COUNT = 1e-4
FEW_TRIALS = 3
MOST_CELLS = 2**25  # that are looked at


def lines_of(splits: Mapping[str, Any], table: Table) -> list[str]:
    """At most one line, of sequences of 8 counts or more.

    Args:
      splits: by role, `base.Split`.
      table: the columns.
    """
    kinds = {column.kind for column in table.columns}
    if len(table.columns) < MIN_UNITS or not kinds <= set(COUNTS):
        return []
    names = [column.name for column in table.columns]
    x = splits["train"].x
    trials = max(1, MOST_CELLS // max(x["values"][0].size, 1))
    counts = np.asarray(x["values"][:trials])
    observed = np.asarray(x["observed"][:trials])
    found = [
        *_of_rows(counts, observed, is_poisson=EQUAL_VARIANCE in kinds),
        *_of_units(np.where(observed, counts, -1.0), names),
        *_of_splits(splits),
    ]
    return [f"counts: {'; '.join(found)}"] if found else []


def _of_rows(counts: np.ndarray, observed: np.ndarray, *, is_poisson: bool) -> list[str]:
    """Windows, dispersion, units of time, axes."""
    found = []
    width = spike_counts.overlap_width(counts, observed)
    if width:
        found.append(
            f"WARNING rows look like sums over windows of {width} rows that overlap: a model of "
            f"steps counts each spike {width} times; keep every {_ordinal(width)} row, or count "
            "spikes anew"
        )
    factor = spike_counts.dispersion(counts, observed)
    if not width and is_poisson and factor > OVERDISPERSED:
        found.append(
            f"WARNING the variance is {factor:.1f} times a Poisson's: --config.data.kinds="
            "negative_binomial --config.model.likelihood=negative_binomial"
        )
    mean = float(counts[observed].mean()) if observed.any() else 0.0
    if not SMALLEST_COUNT <= mean <= LARGEST_COUNT:
        found.append(
            f"WARNING {mean:.3g} spikes in a bin of a neuron: is the bin's width what it should be?"
        )
    (num, num_bins, num_units) = counts.shape
    if spike_counts.axes_look_swapped(counts) or (num < FEW_TRIALS and num_bins < num_units):
        found.append(
            f"WARNING axes are taken as [trials, bins, neurons] = [{num}, {num_bins}, "
            f"{num_units}]; they look like another order"
        )
    return found


def _of_units(counts: np.ndarray, names: list[str]) -> list[str]:
    pairs = spike_counts.repeated_units(counts)
    if not pairs:
        return []
    told = listed(f"{names[b]} repeats {names[a]}" for a, b in pairs)
    return [f"WARNING {told}: one neuron sorted twice predicts its copy"]


def _of_splits(splits: Mapping[str, Any]) -> list[str]:
    """Trials and conditions that train and test share."""
    found = []
    train = splits["train"]
    test = splits["test"]
    if train.labels is not None and test.labels is not None:
        shared = np.isin(np.unique(test.labels), train.labels)
        found.append(
            f"{shared.sum()} of the test split's {len(shared)} conditions are trained on"
            + (", which a model can remember" if shared.any() else "")
        )
    own = {row.tobytes() for row in np.asarray(train.x["values"])}
    same = sum(bool(row.any()) and row.tobytes() in own for row in np.asarray(test.x["values"]))
    if same:
        found.append(f"WARNING {same:,} test trials are training trials, too")
    return found


def _ordinal(number: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    is_teen = 10 < number % 100 < 14
    return f"{number}{'th' if is_teen else ends.get(number % 10, 'th')}"
