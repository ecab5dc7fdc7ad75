"""Whether a model copies its input: seen bins predicted better than its own posterior allows.

An encoder that is shown a spike can put a rate there, and scores above the true rates. An honest
posterior does so a little, too, since it has been moved by that spike; by how much, its own
uncertainty says: log p without the bin itself is about log p less the variance of log p under the
posterior (Watanabe 2010, WAIC). Bins that were hidden from the guide show what is true of it.
"""

from typing import NamedTuple

import numpy as np

from vi_jax.diagnostics.spikes import log_likelihood

SIGMAS = 3.0
SHARE = 0.1  # of what hidden bins score: the least excess that is told


class Copying(NamedTuple):
    """Bits per spike above the mean of each neuron."""

    expected: float  # of seen bins, as if each had been left out, by the posterior
    hidden: float  # of hidden bins: the quality
    excess: float  # expected - hidden, about 0 of a posterior that is right
    stderr: float  # of it, over trials

    @property
    def is_copy(self) -> bool:
        """Whether the excess is beyond three standard errors, and a tenth of what hidden bins
        score.
        """
        return self.excess > SIGMAS * self.stderr and self.excess > SHARE * abs(self.hidden)


def copying(
    log_prob: np.ndarray,
    variance: np.ndarray,
    counts: np.ndarray,
    shown: np.ndarray,
    hidden: np.ndarray,
) -> Copying:
    """Compares the bins that a guide was shown with those that it was not.

    Args:
      log_prob: log of the mean of p(x_tn | z) over the guide's samples, nats, [trials, T, N].
      variance: of log p(x_tn | z) over them, nats squared.
      counts: of spikes.
      shown: bool, the bins that the guide was shown.
      hidden: bool, those that it was not, and which are known.

    Returns:
      Bits per spike as of `spikes.bits_per_spike`; nan where a part has no spikes.
    """
    x = np.where(shown | hidden, counts, 0.0).astype(np.float64)
    lead = (0, 1)
    each = np.maximum((shown | hidden).sum(lead), 1)
    null = log_likelihood(x.sum(lead) / each, x)
    seen = _Ratio(np.where(shown, log_prob - variance - null, 0.0), np.where(shown, x, 0.0))
    unseen = _Ratio(np.where(hidden, log_prob - null, 0.0), np.where(hidden, x, 0.0))
    off = seen.influence - unseen.influence
    stderr = np.sqrt(np.sum(off**2) * len(x) / max(len(x) - 1, 1))
    bits = 1.0 / np.log(2.0)
    return Copying(
        float(seen.value * bits),
        float(unseen.value * bits),
        float((seen.value - unseen.value) * bits),
        float(stderr * bits),
    )


class _Ratio:
    """Sum of gains over spikes, and what each trial moves it by."""

    def __init__(self, gain: np.ndarray, spikes: np.ndarray) -> None:
        by_trial = gain.astype(np.float64).reshape(len(gain), -1).sum(1)
        own = spikes.reshape(len(spikes), -1).sum(1)
        total = own.sum() if own.sum() else np.nan
        self.value = by_trial.sum() / total
        self.influence = (by_trial - self.value * own) / total
