"""Where linear predictors of trials start: the principal components of smoothed trials."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter1d

from vi_jax.models._columns import COUNTS, Column
from vi_jax.models.likelihoods import Likelihood
from vi_jax.types import Array, Params

Start = Callable[[Array], Params]  # key -> {"loadings": [N, D], "offset": [N]}
WIDTH = 5.0  # of the smoothing, steps
FLOOR = 0.02  # added to smoothed counts before their logarithm
SMALL = 0.1  # loadings without data to start at


def start_of(
    columns: Sequence[Column],
    num_latents: int,
    likelihood: Likelihood,
    rows: Mapping[str, np.ndarray] | None,
) -> Start:
    """Loadings whose latents have variance 1, and offsets.

    Args:
      columns: of N observations.
      num_latents: D.
      likelihood: counts are smoothed and their logarithms taken, other values are smoothed.
      rows: {"values": [n, T, N], "observed"}; random loadings where there are none.
    """
    num_units = len(columns)
    if rows is None:
        return lambda key: {
            "loadings": SMALL * jax.random.normal(key, (num_units, num_latents)),
            "offset": jnp.zeros(num_units),
        }
    del likelihood
    is_count = np.array([column.kind in COUNTS for column in columns])
    loadings, offset = _components(rows, is_count, num_latents)

    def start(key: Array) -> Params:
        # components beyond those of the data
        noise = SMALL * jax.random.normal(key, (num_units, num_latents))
        known = jnp.asarray(loadings, noise.dtype)
        missing = num_latents - known.shape[1]
        full = jnp.concatenate([known, noise[:, :missing]], axis=1)
        return {"loadings": full, "offset": jnp.asarray(offset, noise.dtype)}

    return start


def smoothed_path(rows: Mapping[str, np.ndarray], is_count: np.ndarray) -> np.ndarray:
    """Local means of what is observed, of counts their logarithms, [n, T, N]."""
    values = np.asarray(rows["values"], np.float64)
    weight = np.asarray(rows["observed"], np.float64)
    total = gaussian_filter1d(values * weight, WIDTH, axis=1, mode="constant")
    around = gaussian_filter1d(weight, WIDTH, axis=1, mode="constant")
    smooth = total / np.maximum(around, 1e-6)
    logs = np.log(np.maximum(smooth, 0.0) + FLOOR)
    return np.where(is_count, logs, smooth)


def _components(
    rows: Mapping[str, np.ndarray], is_count: np.ndarray, num_latents: int
) -> tuple[np.ndarray, np.ndarray]:
    """Loadings [N, min(D, N)] and offsets [N] by principal components."""
    values = np.asarray(rows["values"], np.float64)
    weight = np.asarray(rows["observed"], np.float64)
    # 1. local means of what is observed
    smooth = smoothed_path(rows, is_count)
    each = np.maximum(weight.sum((0, 1)), 1.0)
    mean = (values * weight).sum((0, 1)) / each
    # 2. their main directions, at steps where anything is observed
    steps = smooth[weight.any(-1)]
    centred = steps - steps.mean(0)
    values_of, directions = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
    order = np.argsort(-values_of)[:num_latents]
    loadings = directions[:, order] * np.sqrt(np.maximum(values_of[order], 0.0))
    # 3. offsets at which the mean is about that of the data
    log_mean = np.log(mean + 1e-4) - 0.25 * (loadings**2).sum(1)
    return loadings, np.where(is_count, log_mean, mean)
