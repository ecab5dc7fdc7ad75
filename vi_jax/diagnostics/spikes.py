"""How well rates predict spikes: bits per spike as the Neural Latents Benchmark defines it, and R^2
of rates and latents where they are known.

All take and return NumPy arrays, trials first. Bits per spike of neurons that the model has seen
say nothing of it: a copy of the spikes scores above the true rates. Hold neurons out.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

SMALLEST_RATE = 1e-9


class BitsPerSpike(NamedTuple):
    """Bits per spike, and its standard error over trials (the delta method of a ratio)."""

    value: float
    stderr: float


def bits_per_spike(
    rates: np.ndarray, counts: np.ndarray, observed: np.ndarray | None = None
) -> BitsPerSpike:
    """How much better rates say spikes than the mean of each neuron does (Pei et al. 2021, eq. 2,
    and `bits_per_spike` of nlb_tools): the gain in Poisson log-likelihood over all neurons and
    bins, divided by the number of spikes and log 2. The means are those of the counts given here.

    Args:
      rates: expected counts of a bin, [trials, T, N]; zeros count as 1e-9.
      counts: of the same shape.
      observed: which of them count, bool; all if not given.

    Returns:
      Bits; 0 is the mean of each neuron, and there is no largest value. The standard error holds
      the means fixed. Both are nan where there is no spike.

    Raises:
      ValueError: the shapes differ.
    """
    if rates.shape != counts.shape:
        raise ValueError(
            f"bits_per_spike expects rates and counts alike; got {rates.shape} and {counts.shape}."
        )
    seen = np.ones(counts.shape, bool) if observed is None else np.asarray(observed, bool)
    x = np.where(seen, counts, 0.0).astype(np.float64)
    lead = tuple(range(x.ndim - 1))
    null = x.sum(lead) / np.maximum(seen.sum(lead), 1)
    gain = np.where(seen, log_likelihood(rates, x) - log_likelihood(null, x), 0.0)
    by_trial = gain.reshape(len(x), -1).sum(1)
    spikes = x.reshape(len(x), -1).sum(1)
    if not spikes.sum():
        return BitsPerSpike(float("nan"), float("nan"))
    ratio = by_trial.sum() / spikes.sum()
    off = by_trial - ratio * spikes
    stderr = np.sqrt(np.sum(off**2) * len(x) / max(len(x) - 1, 1)) / spikes.sum()
    return BitsPerSpike(float(ratio / np.log(2.0)), float(stderr / np.log(2.0)))


def log_likelihood(rates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Poisson, elementwise, nats."""
    rates = np.maximum(np.asarray(rates, np.float64), SMALLEST_RATE)
    return counts * np.log(rates) - rates - gammaln(counts + 1.0)


def rate_r2(rates: np.ndarray, truth: np.ndarray) -> float:
    """The R^2 of each neuron over trials and bins, and the mean of these."""
    lead = tuple(range(truth.ndim - 1))
    residual = ((truth - rates) ** 2).sum(lead)
    total = ((truth - truth.mean(lead)) ** 2).sum(lead)
    return float(np.mean(1.0 - residual / total))


def latent_r2(latents: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The R^2 of each true latent on all latents of the same bin, by least squares with an
    intercept, each half of the trials predicted from the other (every second trial).

    Args:
      latents: [trials, T, D].
      truth: [trials, T, L].

    Returns:
      [L].
    """
    flat = np.concatenate([latents, np.ones((*latents.shape[:2], 1))], axis=-1).astype(np.float64)
    predicted = np.empty(truth.shape)
    for half in (0, 1):
        x = flat[1 - half :: 2].reshape(-1, flat.shape[-1])
        y = truth[1 - half :: 2].reshape(-1, truth.shape[-1])
        weights = np.linalg.lstsq(x, y, rcond=None)[0]
        predicted[half::2] = flat[half::2] @ weights
    residual = ((truth - predicted) ** 2).sum((0, 1))
    return 1.0 - residual / ((truth - truth.mean((0, 1))) ** 2).sum((0, 1))


def states_share(states: np.ndarray, truth: np.ndarray) -> float:
    """The share of states that are the true ones, under the best matching of their numbers.

    Args:
      states: whole numbers from 0, of any shape.
      truth: of the same shape; there may be more or fewer of them.
    """
    return float(np.mean(matched_states(states, truth) == truth))


def matched_states(states: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """States under the numbers by which most of them are the true ones.

    Args:
      states, truth: as of `states_share`.
    """
    num = 1 + int(max(states.max(), truth.max()))
    counts = np.zeros((num, num))
    np.add.at(counts, (states.ravel(), truth.ravel()), 1.0)
    from scipy.optimize import linear_sum_assignment  # 0.3 s, which no other part needs

    _, columns = linear_sum_assignment(-counts)
    return columns[states]
