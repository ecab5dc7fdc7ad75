"""What is wrong with counts of spikes before any model sees them: windows that overlap, more
variance than a Poisson's, units that repeat, axes in another order.

All take NumPy arrays of trials [trials, T, N], and where they ask for it what is observed.
"""

import numpy as np

MAX_LAG = 40  # rows, of windows that overlap
WINDOWS_SHARE = 0.6  # of a Poisson's variance of differences: rows that share spikes are below
ANTICORRELATION = -0.25  # of differences a window apart; of independent rows 0, of windows -1/2
AXES_RATIO = 10.0  # of the dispersion of totals by bin to that by unit


def difference_ratio(counts: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
    """Var(x_(t+1) - x_t) / (2 mean), of each unit, [N]: 1 of independent Poisson counts whose rates
    change slowly, 1 / w of sums over windows of w rows that move by one, above 1 of counts with
    more variance; nan of silent units, and of one bin a trial.
    """
    moved, _, mean = _differences(counts, observed)
    if not moved.shape[1]:
        return np.full(counts.shape[-1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(moved**2, axis=(0, 1)) / (2.0 * mean)


def overlap_width(counts: np.ndarray, observed: np.ndarray | None = None) -> int:
    """The rows w that each count is a sum over, where rows are windows that move by one and so
    share spikes; 0 where they do not.

    A difference of two neighbours is then x_(t+1) - x_(t+1-w) of the spikes behind them: a w-th of
    a Poisson's variance, and a correlation of -1/2 with the one w rows later.
    """
    ratio = difference_ratio(counts, observed)
    if not np.isfinite(ratio).any() or np.nanmedian(ratio) >= WINDOWS_SHARE:
        return 0
    moved, square, _ = _differences(counts, observed)
    largest = min(MAX_LAG, moved.shape[1] - 2)
    if largest < 2:
        return 0
    by_lag = []
    for lag in range(1, largest + 1):
        product = moved[:, lag:] * moved[:, :-lag]
        with np.errstate(invalid="ignore", divide="ignore"):
            by_lag.append(np.nanmedian(np.nanmean(product, axis=(0, 1)) / square))
    lag = 1 + int(np.argmin(by_lag))
    return lag if lag > 1 and by_lag[lag - 1] < ANTICORRELATION else 0


def dispersion(counts: np.ndarray, observed: np.ndarray | None = None) -> float:
    """How many times a Poisson's the variance of counts is, median over units: of differences of
    neighbouring bins, so that slow rates do not count; of one bin a trial, over trials.
    """
    ratio = difference_ratio(counts, observed)
    if not np.isfinite(ratio).any():
        x = np.where(_seen(counts, observed), counts, np.nan).reshape(-1, counts.shape[-1])
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.nanvar(x, axis=0) / np.nanmean(x, axis=0)
    return float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else float("nan")


def repeated_units(counts: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of units whose counts are the same throughout, and not silent."""
    flat = np.ascontiguousarray(counts.reshape(-1, counts.shape[-1]).T)
    first: dict[bytes, int] = {}
    pairs = []
    for unit, row in enumerate(flat):
        if not np.any(row > 0):
            continue
        known = first.setdefault(row.tobytes(), unit)
        if known != unit:
            pairs.append((known, unit))
    return pairs


def axes_look_swapped(counts: np.ndarray) -> bool:
    """Whether [trials, T, N] looks like [trials, N, T]: more units than bins, and totals that
    differ ten times as much by bin as by unit.
    """
    (_, num_bins, num_units) = counts.shape
    if num_bins >= num_units:
        return False
    of_bin = _dispersion_of_totals(counts, (0, 2))
    of_unit = _dispersion_of_totals(counts, (0, 1))
    return bool(of_bin > AXES_RATIO * max(of_unit, 1.0))


def _dispersion_of_totals(counts: np.ndarray, over: tuple[int, int]) -> float:
    total = np.nansum(np.where(counts < 0, np.nan, counts), axis=over)
    return float(total.var() / max(total.mean(), 1e-12))


def _seen(counts: np.ndarray, observed: np.ndarray | None) -> np.ndarray:
    return np.ones(counts.shape, bool) if observed is None else np.asarray(observed, bool)


def _differences(
    counts: np.ndarray, observed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of neighbouring bins, nan where one is not observed; their mean squares and the means of
    counts, [N].
    """
    x = np.where(_seen(counts, observed), counts, np.nan).astype(np.float64)
    moved = np.diff(x, axis=1)
    known = ~np.isnan(moved)
    square = np.where(known, moved, 0.0) ** 2
    seen = ~np.isnan(x)
    mean = np.where(seen, x, 0.0).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1)
    return moved, square.sum((0, 1)) / np.maximum(known.sum((0, 1)), 1), mean
