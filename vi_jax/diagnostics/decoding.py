"""Behaviour decoded from rates or latents by ridge regression (Pei et al. 2021).

NumPy arrays, trials first. The penalty is chosen by cross-validation of whole training trials,
lagged bins never reach over the end of a trial, and what is scored has not been trained on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PENALTIES = tuple(10.0**power for power in np.arange(-4.0, 4.5, 0.5))
NUM_FOLDS = 5


class Decoded(NamedTuple):
    """Predictions of the test trials, and how good they are."""

    predicted: np.ndarray  # [trials, T, M]
    r2: np.ndarray  # of each target, [M]
    stderr: np.ndarray  # of each, over trials (the delta method of a ratio), [M]
    penalty: float  # chosen, in units of the features' number of bins

    @property
    def mean_r2(self) -> float:
        """The mean over targets, as scikit-learn's `r2_score` has it."""
        return float(self.r2.mean())


class Trials(NamedTuple):
    """Features and behaviour of the same trials and bins."""

    features: np.ndarray  # [trials, T, F]
    target: np.ndarray  # [trials, T, M], nan where it is not known


def decode(
    train: Trials,
    test: Trials,
    *,
    lags: Sequence[int] = (0,),
    penalties: Sequence[float] = PENALTIES,
) -> Decoded:
    """Ridge regression of behaviour on standardised features, fitted to the training trials.

    Args:
      train: at least two trials.
      test: scored; never looked at before.
      lags: bins by which features come before the target (negative: after), beside each other;
        beyond an end of a trial its first or last bin stands in.
      penalties: of squared weights, for each bin; the best over folds of training trials is taken.

    Raises:
      ValueError: shapes do not fit, or there are fewer than two training trials.
    """
    for name, part in (("train", train), ("test", test)):
        if part.features.shape[:2] != part.target.shape[:2]:
            raise ValueError(
                f"decode expects features and target of the same trials and bins; got {name} "
                f"{part.features.shape} and {part.target.shape}."
            )
    num = len(train.features)
    if num < 2:
        raise ValueError(f"decode expects two training trials or more, to choose by; got {num}.")
    x = lagged(train.features, lags)
    fold = np.arange(num) % min(NUM_FOLDS, num)
    scores = np.zeros(len(penalties))
    for number in np.unique(fold):
        kept = fold != number
        fits = _fits(x[kept], train.target[kept], penalties)
        for place, fit in enumerate(fits):
            scores[place] += _square(fit(x[~kept]), train.target[~kept]).sum()
    penalty = penalties[int(np.argmin(scores))]
    (fit,) = _fits(x, train.target, [penalty])
    predicted = fit(lagged(test.features, lags))
    return Decoded(predicted, *_r2(predicted, test.target), float(penalty))


def lagged(features: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Features at other bins of the same trial, side by side, [trials, T, F * lags]."""
    steps = np.arange(features.shape[1])
    ends = features.shape[1] - 1
    shifted = [features[:, np.clip(steps - lag, 0, ends)] for lag in lags]
    return np.concatenate(shifted, axis=-1)


def _fits(features: np.ndarray, target: np.ndarray, penalties: Sequence[float]) -> list:
    """A function features [trials, T, F] -> prediction for each penalty."""
    y = target.reshape(-1, target.shape[-1]).astype(np.float64)
    known = np.isfinite(y).all(1)
    x = features.reshape(-1, features.shape[-1]).astype(np.float64)[known]
    y = y[known]
    centre = x.mean(0)
    scale = x.std(0)
    scale = np.where(scale > 1e-12 * (1.0 + np.abs(centre)), scale, np.inf)  # constants: weight 0
    z = (x - centre) / scale
    mean = y.mean(0)
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    across = vectors.T @ (z.T @ (y - mean) / len(z))

    def fit_of(penalty: float) -> object:
        weights = vectors @ (across / (np.maximum(values, 0.0) + penalty)[:, None])
        return lambda features: (features - centre) / scale @ weights + mean

    return [fit_of(penalty) for penalty in penalties]


def _square(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared residuals, 0 where the target is not known."""
    return np.where(np.isfinite(target), (predicted - target) ** 2, 0.0)


def _r2(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R^2 of each target and its standard error, the target's mean held."""
    known = np.isfinite(target)
    mean = np.where(known, target, 0.0).sum((0, 1)) / np.maximum(known.sum((0, 1)), 1)
    residual = _square(predicted, target).sum(1)  # [trials, M]
    total = np.where(known, (target - mean) ** 2, 0.0).sum(1)
    share = residual.sum(0) / total.sum(0)
    off = residual - share * total
    num = len(residual)
    stderr = np.sqrt((off**2).sum(0) * num / max(num - 1, 1)) / total.sum(0)
    return 1.0 - share, stderr
