"""What is seen of the columns of a table on disk, in one pass over its rows.

Means and variances of blocks are put together as Chan, Golub & LeVeque (1983) do, in float64. Rows
are known by a number each, so that repeated ones are found without being held.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import kinds
from experiments.data.columns import LOG
from experiments.data.lazy import OnDisk
from experiments.data.options import Options, sentinel_numbers
from experiments.data.pieces import Parts
from experiments.data.raw import RawTable


class Scanned(NamedTuple):
    """What is seen."""

    seen: dict[str, kinds.Seen]
    levels: dict[str, tuple[np.ndarray, np.ndarray]]  # values of classes, their training counts
    missing: dict[str, int]  # column -> values of all rows that are not there
    hashes: dict[str, np.ndarray]  # role -> a number for each row, uint64 [n]


def scan(parts: Parts, names: Sequence[str], options: Options) -> Scanned:
    """Looks once at every row of a table.

    Args:
      parts: for each role the table of its split, on disk, and its rows.
      names: the columns that are looked at.
      options: how they are read.

    Raises:
      DataError: a value is infinite.
    """
    first = next(iter(parts.values()))[0]
    place = {name: d for d, name in enumerate(first.names)}
    beside = [name for name in (options.exposure, *options.covariates) if name in place]
    where = np.array([place[name] for name in (*names, *beside)], np.int64)
    size = len(names)
    state = _State(names, with_logs=_wants_logs(options))
    hashes: dict[int, np.ndarray] = {}
    for raw, used, is_train in _tables(parts):
        of_rows = np.zeros(len(raw), np.uint64)
        for start, data in by_row(raw).blocks():
            here = slice(start, start + len(data))
            (values, observed) = read_columns(data, where, options)
            of_rows[here] = _row_hashes(values, observed)
            some = _Some(values[:, :size], observed[:, :size], is_train[here])
            state.add(some if used[here].all() else some.at(used[here]))
        hashes[id(raw)] = of_rows
    by_role = {role: hashes[id(raw)][rows] for role, (raw, rows) in parts.items()}
    return state.found(by_role)


class _Some(NamedTuple):
    """Some rows."""

    values: np.ndarray  # float64 [n, D], 0 where not observed
    observed: np.ndarray  # bool [n, D]
    is_train: np.ndarray  # bool [n]

    def at(self, which: np.ndarray) -> "_Some":
        """Those of them that are asked for, by bools [n]."""
        return _Some(*(array[which] for array in self))


def by_row(raw: RawTable) -> OnDisk:
    """The rows of a table of numbers."""
    assert raw.by_row is not None
    return raw.by_row


def read_columns(
    data: np.ndarray, where: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Values, float64 [n, D], 0 where they are missing, and what is not, of the columns `where` of
    stored rows.
    """
    is_range = len(where) > 0 and bool(np.all(np.diff(where) == 1))
    columns = slice(where[0], where[-1] + 1) if is_range else where  # a slice is taken faster
    values = data[:, columns].astype(np.float64)
    observed = np.isnan(values)
    np.logical_not(observed, out=observed)
    for number in sentinel_numbers(options):
        observed &= values != number
    if not observed.all():
        np.copyto(values, 0.0, where=~observed)
    values += 0.0  # -0.0 is 0.0
    return values, observed


def _tables(parts: Parts) -> Iterator[tuple[RawTable, np.ndarray, np.ndarray]]:
    """(table, which of its rows are in a split, which of them train) of each stored table."""
    tables = {id(raw): raw for raw, _ in parts.values()}
    for raw in tables.values():
        used = np.zeros(len(raw), bool)
        is_train = np.zeros(len(raw), bool)
        for role, (other, rows) in parts.items():
            if other is raw:
                used[rows] = True
                is_train[rows] |= role == "train"
        yield raw, used, is_train


def _wants_logs(options: Options) -> bool:
    return options.positive == "log" or any(kind == LOG for _, kind in options.kinds)


def _row_hashes(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """As `report.row_hashes`, of numbers in float64."""
    generator = np.random.default_rng(0)
    size = values.shape[1]
    factors = generator.integers(2**63, size=(2, size), dtype=np.uint64) * 2 + 1
    bits = values.view(np.uint64)
    bits = bits ^ (bits >> np.uint64(32))  # of small whole numbers only the upper half differs
    bits *= factors[0]
    total = bits.sum(1)
    if not observed.all():
        total += (~observed * factors[1]).sum(1)
    return total


def _counts(observed: np.ndarray) -> np.ndarray:
    """Of what is observed of each column of some rows, float64 [D]."""
    if observed.all():
        return np.full(observed.shape[1], float(len(observed)))
    return observed.sum(0, dtype=np.float64)


class _Moments:
    """Numbers, means and sums of squared distances from them, by column, of rows that come."""

    def __init__(self, size: int) -> None:
        self.num = np.zeros(size)
        self.origin = np.zeros(size)  # a value of each column: what is constant is exactly so
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)

    def add(self, values: np.ndarray, observed: np.ndarray) -> None:
        """Rows [n, D]; values are 0 where they are not observed."""
        num = _counts(observed)
        is_new = (self.num == 0) & (num > 0)
        if is_new.any():
            first = values[observed.argmax(0), np.arange(values.shape[1])]
            self.origin[is_new] = first[is_new]
        shifted = values - self.origin
        has_all = bool(num.min(initial=len(values)) == len(values))
        if not has_all:
            shifted *= observed
        mean = shifted.sum(0) / np.maximum(num, 1.0)
        shifted -= mean
        if not has_all:
            shifted *= observed
        squares = np.square(shifted, out=shifted).sum(0)
        both = np.maximum(self.num + num, 1.0)
        step = mean - self.mean
        # Chan et al. (1983), eq. 2.1
        self.squares += squares + step**2 * (self.num * num / both)
        self.mean += step * (num / both)
        self.num += num

    def of(self, d: int) -> tuple[float, float]:
        """Mean and standard deviation of a column; nan of none."""
        if not self.num[d]:
            return np.nan, np.nan
        return float(self.origin[d] + self.mean[d]), float(np.sqrt(self.squares[d] / self.num[d]))


class _State:
    """What was seen so far."""

    def __init__(self, names: Sequence[str], *, with_logs: bool) -> None:
        size = len(names)
        self._names = names
        self._low = np.full(size, np.inf)
        self._high = np.full(size, -np.inf)
        self._num_missing = np.zeros(size, np.int64)
        self._moments = _Moments(size)
        self._logs = _Moments(size)
        self._with_logs = with_logs
        # {value: how often in the training rows} of columns that are whole and have few values
        self._levels: dict[int, dict[float, int]] = {d: {} for d in range(size)}
        self._is_whole = np.ones(size, bool)

    def add(self, some: _Some) -> None:
        """Rows that are in a split."""
        (values, observed, is_train) = some
        if not len(values):
            return
        missing = len(observed) - _counts(observed)
        self._num_missing += missing.astype(np.int64)
        has_all = not missing.any()
        low = values if has_all else np.where(observed, values, np.inf)
        high = values if has_all else np.where(observed, values, -np.inf)
        self._low = np.minimum(self._low, low.min(0))
        self._high = np.maximum(self._high, high.max(0))
        self._require_finite(values)
        for d in np.flatnonzero(self._is_whole):
            self._add_levels(int(d), values[:, d], observed[:, d], is_train)
        train = some if is_train.all() else some.at(is_train)
        with np.errstate(over="ignore", invalid="ignore"):  # told by `kinds.require_spread`
            self._moments.add(train.values, train.observed)
        if self._with_logs:
            positive = train.observed & (train.values > 0)
            self._logs.add(np.log(np.where(positive, train.values, 1.0)), positive)

    def _require_finite(self, values: np.ndarray) -> None:
        is_there = self._low <= self._high
        if np.isfinite(self._low[is_there]).all() and np.isfinite(self._high[is_there]).all():
            return
        (rows, columns) = np.nonzero(np.isinf(values))
        found = float(values[rows[0], columns[0]])
        kinds.require_finite(self._names[columns[0]], found, found)

    def _add_levels(
        self, d: int, values: np.ndarray, observed: np.ndarray, is_train: np.ndarray
    ) -> None:
        """Whether a column is still of whole numbers, and which."""
        if np.any(values[:1000] != np.rint(values[:1000])) or np.any(values != np.rint(values)):
            self._is_whole[d] = False
            self._levels.pop(d, None)
        if d not in self._levels:
            return
        found = self._levels[d]
        (known, place) = np.unique(values[observed], return_inverse=True)
        counts = np.bincount(place, weights=is_train[observed], minlength=len(known))
        for value, count in zip(known.tolist(), counts.tolist(), strict=True):
            found[value] = found.get(value, 0) + int(count)
        if len(found) > kinds.MAX_CODES:
            del self._levels[d]

    def found(self, hashes: Mapping[str, np.ndarray]) -> Scanned:
        """All of it, by column."""
        seen = {}
        levels = {}
        for d, name in enumerate(self._names):
            is_there = self._low[d] <= self._high[d]
            low = float(self._low[d]) if is_there else np.nan
            high = float(self._high[d]) if is_there else np.nan
            own = self._levels.get(d)
            distinct = None if own is None else np.array(sorted(own))
            (mean, sd) = self._moments.of(d)
            (log_mean, log_sd) = self._logs.of(d) if low > 0 else (np.nan, np.nan)
            seen[name] = kinds.Seen(
                name=name,
                num_observed=int(self._moments.num[d]),
                low=low,
                high=high,
                is_whole=bool(self._is_whole[d]),
                distinct=distinct,
                mean=mean,
                sd=sd,
                log_mean=log_mean,
                log_sd=log_sd,
                texts=None,
            )
            known = np.array([]) if distinct is None else distinct
            counts = np.array([own[value] for value in known] if own else [], np.float64)
            levels[name] = (known, counts)
        missing = dict(zip(self._names, self._num_missing.tolist(), strict=True))
        return Scanned(seen, levels, missing, dict(hashes))
