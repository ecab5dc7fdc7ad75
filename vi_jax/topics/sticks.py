"""The weights of a hierarchical Dirichlet process's topics over a corpus: sticks, broken in turn,
by Beta factors under a surrogate bound.

u_k ~ Beta(1, gamma), b_k = u_k prod_{j<k} (1 - u_j), b_{K+1} what is left, and the shares of a
document are Dirichlet(a b) (Hughes, Kim & Sudderth 2015). With q(u_k) = Beta, the normaliser of
that Dirichlet has no closed expectation; from below it is bounded by

    log Gamma(a) - sum_k log Gamma(a b_k) >= K log a + sum_k log b_k,    k = 1 to K + 1.

In float64 by NumPy and SciPy: K numbers a sweep.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, polygamma

from vi_jax.topics.counts import Numpy

_STEPS = 200  # of L-BFGS, at most


class Sticks(NamedTuple):
    """q(u_k) = Beta(ones[k], zeros[k]) of K sticks."""

    ones: Numpy  # [K]
    zeros: Numpy  # [K]

    @property
    def weights(self) -> Numpy:
        """E[b], [K + 1]; they sum to 1."""
        mean = self.ones / (self.ones + self.zeros)
        left = np.cumprod(1.0 - mean)
        return np.append(mean, 1.0) * np.concatenate([[1.0], left])


class Seen(NamedTuple):
    """What the documents say to the sticks."""

    num_docs: float  # N, that are not empty
    concentration: float  # a
    gamma: float  # of the prior of sticks
    log_shares: Numpy  # sum over documents of E[log share], [K + 1]


def from_weights(weights: Numpy, num_docs: float) -> Sticks:
    """Sticks whose E[b] are the weights [K + 1], as sure as N documents make them."""
    left = np.cumsum(weights[::-1])[::-1]
    mean = np.clip(weights[:-1] / left[:-1], 1e-6, 1.0 - 1e-6)
    size = num_docs * np.arange(len(mean) + 1, 1, -1)
    return Sticks(mean * size, (1.0 - mean) * size)


def bound(sticks: Sticks, seen: Seen) -> float:
    """E[log p(shares | sticks)], but for the part that is no function of them, less KL(q(u), p(u)),
    with the surrogate in the place of the normaliser; nats.
    """
    first, second = _coefficients(len(sticks.ones), seen)
    total = digamma(sticks.ones + sticks.zeros)
    log_one = digamma(sticks.ones) - total
    log_zero = digamma(sticks.zeros) - total
    of_sticks = (first + 1.0 - sticks.ones) * log_one + (second + 1.0 - sticks.zeros) * log_zero
    value = np.sum(of_sticks + betaln(sticks.ones, sticks.zeros) + np.log(seen.gamma))
    value += seen.num_docs * len(sticks.ones) * np.log(seen.concentration)
    return float(value + seen.concentration * np.sum(sticks.weights * seen.log_shares))


def optimum(sticks: Sticks, seen: Seen) -> Sticks:
    """The sticks that maximise `bound`, by L-BFGS from where they are."""
    mean = sticks.ones / (sticks.ones + sticks.zeros)
    start = np.concatenate([np.log(mean / (1.0 - mean)), np.log(sticks.ones + sticks.zeros)])

    def cost(point: Numpy) -> tuple[float, Numpy]:
        trial = _at(point)
        return -bound(trial, seen), -_slope(point, trial, seen)

    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    best = _at(found.x)
    return best if bound(best, seen) >= bound(sticks, seen) else sticks


def best_concentration(sticks: Sticks, seen: Seen) -> float:
    """The a that maximises `bound`, in closed form."""
    slope = float(np.sum(sticks.weights * seen.log_shares))
    return seen.num_docs * len(sticks.ones) / -slope


def _coefficients(num_sticks: int, seen: Seen) -> tuple[Numpy, Numpy]:
    """Of E[log u_k] and of E[log(1 - u_k)], prior and surrogate together, [K] each."""
    below = np.arange(num_sticks, 0, -1)  # of the weights b, those that have the factor 1 - u_k
    first = np.full(num_sticks, seen.num_docs)
    return first, seen.num_docs * below + seen.gamma - 1.0


def _at(point: Numpy) -> Sticks:
    """Sticks of logits of their means and logs of their sizes, [2 K]."""
    logits, log_sizes = np.split(point, 2)
    size = np.exp(np.clip(log_sizes, -20.0, 40.0))
    return Sticks(np.maximum(expit(logits) * size, 1e-8), np.maximum(expit(-logits) * size, 1e-8))


def _slope(point: Numpy, sticks: Sticks, seen: Seen) -> Numpy:
    """The gradient of `bound` in the coordinates of `_at`, [2 K]."""
    first, second = _coefficients(len(sticks.ones), seen)
    size = sticks.ones + sticks.zeros
    mean = sticks.ones / size
    away_one = first + 1.0 - sticks.ones
    away_zero = second + 1.0 - sticks.zeros
    common = (away_one + away_zero) * polygamma(1, size)
    by_ones = away_one * polygamma(1, sticks.ones) - common
    by_zeros = away_zero * polygamma(1, sticks.zeros) - common
    # E[b_k] has the factor u_k, those after it 1 - u_k
    parts = sticks.weights * seen.log_shares
    after = np.cumsum(parts[::-1])[::-1][1:]
    by_mean = seen.concentration * (parts[:-1] / mean - after / (1.0 - mean))
    by_logit = mean * (1.0 - mean) * (size * (by_ones - by_zeros) + by_mean)
    by_log_size = sticks.ones * by_ones + sticks.zeros * by_zeros
    return np.concatenate([by_logit, by_log_size])
