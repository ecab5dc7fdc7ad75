"""Observed entries of validation rows, hidden from the model as missing ones are missing."""

from typing import Any, NamedTuple

import numpy as np

from experiments.data.columns import COUNTS, ORDERED, REAL, Table

HAVE_INTERVALS = (*REAL, *COUNTS, *ORDERED)
MIN_COMPLETE = 30  # validation rows that can be given the holes of other rows


class Hidden(NamedTuple):
    """Examples with observed entries hidden."""

    example: np.ndarray  # of the split, [E]; some more than once
    is_hidden: np.ndarray  # [E, D], or of sequences [E, T, D]
    how: str  # a phrase


def hide(
    seed: int | np.ndarray,
    observed: np.ndarray,
    is_there: np.ndarray,
    holes: np.ndarray,
    table: Table,
    num: int,
) -> Hidden:
    """Hides some of the observed entries of validation rows as the missing ones are missing.

    Complete rows are given the holes of rows that are imputed, where there are enough of them. Else
    one entry of a row is hidden at a time, in columns as often as entries of them are missing: what
    is missing completely at random then leaves as much of its row as these do.

    Args:
      seed: of what is hidden, a number or several.
      observed: of validation rows, [N, D], or of sequences [N, T, D].
      is_there: what is no padding, broadcast against it.
      holes: what is missing of the rows that are imputed, [M, D] or [M, T', D].
      table: the columns.
      num: hidden entries of columns that have intervals, about.
    """
    rng = np.random.default_rng(seed)
    has_intervals = intervals_of(table)
    of_each = (holes & has_intervals).reshape(len(holes), -1).sum(1).mean()
    complete = np.flatnonzero((observed | ~is_there).reshape(len(observed), -1).all(1))
    if len(complete) < MIN_COMPLETE or not of_each:
        return _one_at_a_time(rng, observed & is_there & has_intervals, holes, num)
    size = int(np.ceil(num / max(of_each, 1.0)))
    example = np.resize(rng.permutation(complete), size)
    pattern = holes[rng.integers(len(holes), size=size)]
    if observed.ndim == 3:
        pattern = _as_long(pattern, observed.shape[1])
    is_hidden = pattern & (observed & is_there)[example]
    return Hidden(example, is_hidden, "given the holes of other rows")


def _one_at_a_time(
    rng: np.random.Generator, candidates: np.ndarray, holes: np.ndarray, num: int
) -> Hidden:
    """At most `num` examples of one hidden candidate each, whose column is drawn as often as it has
    holes.
    """
    num_missing = holes.reshape(-1, holes.shape[-1]).sum(0)
    num_seen = candidates.reshape(-1, candidates.shape[-1]).sum(0)
    rate = np.where(num_seen > 0, num_missing / np.maximum(num_seen, 1), 0.0)
    places = np.argwhere(candidates & (rate > 0.0))
    size = min(num, len(places))
    is_hidden = np.zeros((size, *candidates.shape[1:]), bool)
    if not size:
        return Hidden(np.zeros(0, int), is_hidden, "")
    weights = rate[places[:, -1]]
    chosen = places[rng.choice(len(places), size, replace=False, p=weights / weights.sum())]
    is_hidden[(np.arange(size), *chosen[:, 1:].T)] = True
    return Hidden(chosen[:, 0], is_hidden, "one of a row at a time")


def intervals_of(table: Table) -> np.ndarray:
    """Which columns have intervals, [D]."""
    return np.array([kind in HAVE_INTERVALS for kind in table.kinds])


def without(x: Any, is_hidden: np.ndarray, table: Table) -> Any:
    """Rows without their hidden entries, and with an exposure that does not tell them."""
    observed = np.asarray(x["observed"]) & ~is_hidden
    values = np.where(is_hidden, 0.0, np.asarray(x["values"])).astype(np.float32)
    given = {**x, "observed": observed, "values": values}
    if table.exposure == "total":
        counted = np.array([kind in COUNTS for kind in table.kinds])
        total = np.where(observed & counted, values, 0.0).sum(-1) / table.exposure_mean
        given["exposure"] = np.where(total > 0.0, total, 1.0).astype(np.float32)
    return given


def holes_of(dataset: Any, names: tuple[str, ...]) -> np.ndarray:
    """What is missing of the incomplete examples of some splits, [M, D] or [M, T, D]."""
    found = []
    for name in names:
        part = getattr(dataset, name)
        observed = np.asarray(part.x["observed"])
        missing = ~observed & is_there_of(observed, part.lengths)
        found.append(missing[missing.reshape(len(missing), -1).any(1)])
    return np.concatenate(found)


def is_there_of(observed: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What is no padding, to be broadcast against what is observed."""
    if lengths is None:
        return np.ones((1, 1), bool)
    return (np.arange(observed.shape[1]) < lengths[:, None])[..., None]


def _as_long(pattern: np.ndarray, num_steps: int) -> np.ndarray:
    """Patterns [E, T', D] of as many steps, cut or with nothing hidden at the end."""
    missing = max(num_steps - pattern.shape[1], 0)
    return np.pad(pattern, ((0, 0), (0, missing), (0, 0)))[:, :num_steps]
